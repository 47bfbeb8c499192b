"""One session as the checkpointer follows it: data, outer state, evaluation, checkpoints, final model.

Loaded by the checkpointer's process only: it needs torch.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from hivemind.dht import DHT
from transformers import PreTrainedTokenizerFast

from coordinator.checkpointer_messages import Exported, Following, Judged, Saved
from coordinator.credits import credit_data
from coordinator.evidence_files import EvidenceFiles
from coordinator.session_assets import gather_assets, model_files
from coordinator.session_paths import confine
from cotrain.config import RunConfig
from cotrain.membership.document import MembershipFile
from cotrain.paths import MEMBERSHIP_FILE, SharedPaths
from cotrain.status import State
from cotrain.swarm.dht import DhtThread
from cotrain.swarm.follow import Followed
from cotrain.swarm.judgement import Judgement
from cotrain.swarm.loop import LoopThread
from cotrain.swarm.observer import SessionObserver
from cotrain.train.checkpoint import (
    Checkpoint,
    CheckpointStore,
    export_model,
    outer_counters,
    outer_tensors,
    read_outer_state,
)
from cotrain.train.data.prepare import prepare_dataset
from cotrain.train.data.samples import TaskDataset
from cotrain.train.diloco import OuterState, RoundLengths
from cotrain.train.distill import load_teacher
from cotrain.train.early_stopping import EarlyStopping
from cotrain.train.evaluate import evaluate, generate_text, trivial_losses
from cotrain.train.fragments import Fragments
from cotrain.train.inner import InnerLoop
from cotrain.train.model import build_model, flatten_parameters, load_flat_parameters
from cotrain.train.parallel import ParallelGroup
from cotrain.train.reporter import StatusReporter
from cotrain.train.tasks.registry import make_task
from cotrain.train.tokenizer import load_tokenizer

logger = logging.getLogger(__name__)

PEER_NAME = "checkpointer"
EVIDENCE_FOLDER = "evidence"
SAMPLE_PROMPT = "def "
SAMPLE_TOKENS = 160


class FollowedSession:
    """Built when the session opens; `follow` is called again and again; `close` when it is let go."""

    def __init__(
        self, config: RunConfig, shared: SharedPaths, dht: DHT, dht_thread: DhtThread, loop: LoopThread,
        on_judged: Callable[[Judged], None],
    ):  # fmt: skip
        """Prepares the data, builds the model, and opens the swarm at the newest checkpoint or at the beginning.

        `on_judged` is called for evidence that holds, in another thread, and at once for each proof that is kept.
        """
        config = confine(config, shared)
        self._config, self._shared = config, shared
        self._models_folder = shared.temporary_models / config.session.id
        self._assets_folder = shared.temporary_models / f"{config.session.id}-assets"
        self._prepared = prepare_dataset(
            config, folder=shared.processed_datasets, splits_folder=shared.dataset_splits,
            raw_folder=shared.raw_datasets,
        )  # fmt: skip
        spec = self._prepared.spec
        task = make_task(spec.task, spec, seed=config.session.seed, fields=config.data.fields)
        self._train, self._validation = (
            TaskDataset(part, task) for part in (self._prepared.train, self._prepared.validation)
        )
        self._wanted = config.samples_wanted(len(self._train))
        self._model = build_model(config.model, spec, seed=config.session.seed)
        self._models = self._save_models()
        self._inner = InnerLoop(config, self._model, self._validation, ParallelGroup(0, 1, torch.device("cpu")))
        self._checkpoints = CheckpointStore(shared.checkpoints / config.session.id, keep=config.checkpoint.keep)
        self._lengths = RoundLengths.from_config(config, self._wanted)
        self._checkpoint_rounds = math.ceil(config.checkpoint.interval / config.diloco.round_steps)
        self._stopping = EarlyStopping(config.train.early_stopping_patience)
        self._evaluation: dict[str, float] = {}
        folder = shared.run_dir(config.session.id, PEER_NAME)
        self._reporter = StatusReporter(
            folder, session=config.session.id, peer=PEER_NAME, interval_s=config.monitoring.status_interval_s
        )
        self._evidence = EvidenceFiles(folder / EVIDENCE_FOLDER)
        self._on_judged = on_judged
        proofs = self._evidence.proofs()
        self._observer = self._observe(dht, dht_thread, loop, proofs)
        for judgement in proofs:  # whoever was told before may have died before it did anything
            self._tell(judgement)
        self._reporter.start()
        self._describe()
        self._report_state()
        self._evaluate()

    def _observe(
        self, dht: DHT, dht_thread: DhtThread, loop: LoopThread, proofs: Sequence[Judgement]
    ) -> SessionObserver:  # fmt: skip
        return SessionObserver(
            self._config,
            self._checkpoints.newest(self._read) or OuterState.initial(flatten_parameters(self._model)),
            samples_wanted=self._wanted, dht=dht, dht_thread=dht_thread, loop=loop,
            membership=MembershipFile(self._shared.run_dir(self._config.session.id, PEER_NAME) / MEMBERSHIP_FILE),
            fragments=Fragments.of_model(self._model, self._config.diloco.fragments),
            keep_evidence=self._keep_evidence,
            convicted=[judgement.accused for judgement in proofs],
        )  # fmt: skip

    def _save_models(self) -> dict[str, Path]:
        """Files of the models that the nodes cannot make themselves, by their assets' names."""
        config, folder = self._config, self._models_folder
        files: dict[str, Path] = {}
        if config.model.source is not None:
            files |= model_files(folder / "source", "source", self._model)
        teacher = load_teacher(config.distillation, self._prepared.spec, self._model.device)
        if teacher is not None:
            files |= model_files(folder / "teacher", "teacher", teacher.model)
        return files

    def _read(self, checkpoint: Checkpoint) -> OuterState:
        state = read_outer_state(checkpoint, numel=flatten_parameters(self._model).numel())
        self._stopping = EarlyStopping.from_state(checkpoint.metadata["early_stopping"])
        self._stopping.patience = self._config.train.early_stopping_patience
        return state

    def _describe(self) -> None:
        self._reporter.update(
            samples_wanted=self._wanted, parameters=self._observer.state.parameters.numel(),
            baselines=trivial_losses(self._train, self._validation), device="cpu",
        )  # fmt: skip
        self._reporter.phase(
            "training",
            message=f"the swarm is open at round {self._observer.state.round}; {self._wanted} samples wanted",
        )

    def _keep_evidence(self, content: bytes, judgement: Judgement) -> None:
        self._evidence.keep(content, judgement)
        self._tell(judgement)

    def _tell(self, judgement: Judgement) -> None:
        self._on_judged(Judged(session=self._config.session.id, **asdict(judgement)))

    def following(self) -> Following:
        """What the session's nodes need."""
        assets = gather_assets(self._assets_folder, {self._prepared.train.name: self._prepared.train, **self._models})
        return Following(
            session=self._config.session.id, assets=assets, asset_folder=str(self._assets_folder),
            data_key=self._prepared.train.parent.name,
        )  # fmt: skip

    def follow(self) -> bool:
        """Catch up with the swarm; True once the run is complete, or has stopped early."""
        if self._is_over():
            return True
        began, trainers = time.monotonic(), len(self._observer.trainers)
        self._reporter.wait("" if trainers else "a node that trains")
        if not self._observer.follow():
            self._reporter.update(peers=trainers)
            return False
        self._report_state(time.monotonic() - began)
        every, round_ = self._config.monitoring.evaluation_rounds, self._observer.state.round
        if self._is_over() or self._lengths.is_evaluated(self._observer.state, every):
            self._evaluate()
        # where that has ended the run, this may be its best state, or the only one that was evaluated and is kept
        if self._is_over() or round_ % self._checkpoint_rounds == 0:
            self._save_checkpoint()
        return self._is_over()

    def _is_over(self) -> bool:
        return self._observer.state.samples >= self._wanted or self._stopped_early

    @property
    def _stopped_early(self) -> bool:
        return self._config.train.early_stopping and self._stopping.stopped

    def _report_state(self, following_s: float = 0.0) -> None:
        """A record of the round; `following_s`: seconds until its state was here, the outer step among them."""
        state, digest, followed = self._observer.state, self._observer.digest, self._observer.followed
        holders = [held for round_, held in self._observer.trainers.values() if round_ == state.round]
        self._reporter.update(
            status="training" if state.round else "waiting", round=state.round, samples_committed=state.samples,
            digest=digest, peers=len(self._observer.trainers), bytes_received=self._observer.bytes_received,
        )  # fmt: skip
        agrees = set(holders) <= {digest}
        self._reporter.record(
            "round", f"round {state.round}: {'the digest is' if agrees else 'some peers do not hold'} the swarm's",
            level="info" if agrees else "warning",
            data={"round": state.round, "digest": digest, "samples": state.samples, "digestsEqual": agrees,
                  "holders": len(holders), "followingSeconds": round(following_s, 3),
                  **({} if followed is None else _told(followed)), **credit_data(self._observer.credits)},
        )  # fmt: skip

    def _evaluate(self, *, counts: bool = True) -> None:
        """`counts`: whether early stopping hears of it."""
        state, config = self._observer.state, self._config
        load_flat_parameters(self._model, state.parameters)
        result = evaluate(
            self._inner, self._validation, batches=config.monitoring.evaluation_batches,
            batch_size=config.train.batch_size,
        )  # fmt: skip
        self._reporter.update(validation_loss=result.loss, validation_round=state.round, accuracy=result.accuracy)
        if counts:
            self._stopping.observe(result.loss)
        self._evaluation = {
            "round": state.round, "samples": state.samples, "validationLoss": result.loss, "targets": result.targets,
            **result.metrics,
        }  # fmt: skip
        self._reporter.record(
            "evaluation", f"round {state.round}: validation loss {result.loss:.4f}", data=self._evaluation
        )
        if counts and self._stopped_early:
            self._reporter.record(
                "log", f"stopped early: {self._stopping.patience} evaluations in a row without a lower validation loss"
            )

    def _save_checkpoint(self) -> None:
        state, status = self._observer.state, self._reporter.status
        self._checkpoints.save(
            outer_tensors(state),
            {"outer": outer_counters(state), "digest": self._observer.digest, "early_stopping": self._stopping.state()},
            validation_loss=status.validation_loss if status.validation_round == state.round else None,
        )

    def save_model(self, job: str) -> Exported:
        """Export the newest outer parameters that are held here, into a folder of this round; evaluated, as all are.

        Raises StorageError.
        """
        state = self._observer.state
        if self._evaluation["round"] != state.round:
            self._evaluate(counts=False)  # when somebody asks must not decide when the run stops
        output = self._config.checkpoint.output_path
        path = (
            Path(output) / f"round-{state.round}"
            if output
            else self._shared.interim_model(self._config.session.id, state.round)
        )
        if not path.is_dir():  # whole or not at all; another request in the same round
            self._export(state, path)
        self._reporter.record(
            "log", f"the model after round {state.round} is saved at {path}", data={"savedPath": str(path)}
        )
        return Exported(
            session=self._config.session.id, job=job, path=str(path), round=state.round, evaluation=self._evaluation
        )

    def _export(self, state: OuterState, path: Path) -> PreTrainedTokenizerFast:
        tokenizer = load_tokenizer(self._config.tokenizer, self._prepared.spec.task)
        load_flat_parameters(self._model, state.parameters)
        export_model(self._model, tokenizer, path)
        return tokenizer

    def save_final_model(self) -> Saved:
        """Export the outer parameters, tokenizer included; its path loads with `from_pretrained`.

        Of a run that stopped early it is the best checkpoint.
        """
        if self._observer.follow():
            self._report_state()
        self._reporter.phase("finishing", message="saving the final model")
        best = self._checkpoints.best(self._read) if self._stopped_early else None
        exported = best or self._observer.state
        output = self._config.checkpoint.output_path
        path = Path(output) / "final" if output else self._shared.final_model(self._config.session.id)
        tokenizer = self._export(exported, path)
        sample = ""
        if self._prepared.spec.task == "causal-lm":
            sample = SAMPLE_PROMPT + generate_text(
                self._model, tokenizer, SAMPLE_PROMPT, max_new_tokens=SAMPLE_TOKENS, seed=self._config.session.seed
            )
        self._reporter.update(model_path=str(path))
        self._reporter.record(
            "log",
            f"the model is saved at {path}",
            data={"modelPath": str(path), "sample": sample},
        )
        state: State = "completed" if self._is_over() else "stopped"
        self._reporter.phase("done", state, message=f"the run is {state}")
        return Saved(session=self._config.session.id, path=str(path), round=exported.round)

    def close(self) -> None:
        """Leave the session's swarm; its files stay, but for those that nodes have fetched."""
        if self._observer.state.round > 0:
            self._save_checkpoint()
        self._observer.close()
        for folder in (self._models_folder, self._assets_folder):
            shutil.rmtree(folder, ignore_errors=True)
        self._reporter.stop()


def _told(followed: Followed) -> dict[str, str | int | None]:
    return {
        "followedBy": followed.by, "donor": followed.donor, "zeroedParts": followed.zeroed_parts,
        "bytesReceived": followed.bytes_received,
    }  # fmt: skip
