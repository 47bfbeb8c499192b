"""One session as the checkpointer follows it: data, outer state, evaluation, checkpoints, final model.

Loaded by the checkpointer's process only: it needs torch.
"""

from __future__ import annotations

import hashlib
import logging
import math
from pathlib import Path

from hivemind.dht import DHT

from coordinator.checkpointer_messages import Following
from cotrain.config import RunConfig
from cotrain.errors import ConfigError
from cotrain.paths import SharedPaths
from cotrain.protocol import Asset
from cotrain.swarm.dht import DhtThread
from cotrain.swarm.loop import LoopThread
from cotrain.swarm.observer import SessionObserver
from cotrain.train.checkpoint import export_model, load_newest_outer_checkpoint, save_outer_checkpoint
from cotrain.train.data import PreparedDataset, TokenDataset, prepare_dataset
from cotrain.train.diloco import OuterState
from cotrain.train.evaluate import bigram_baseline, byte_baseline, evaluate, generate_text
from cotrain.train.model import build_model, flatten_parameters, load_flat_parameters
from cotrain.train.reporter import StatusReporter
from cotrain.train.tokenizer import VOCAB_SIZE, byte_tokenizer

logger = logging.getLogger(__name__)

PEER_NAME = "checkpointer"
SAMPLE_PROMPT = "def "
SAMPLE_TOKENS = 160


class FollowedSession:
    """Built when the session opens; `follow` is called again and again; `close` when it is let go."""

    def __init__(
        self, config: RunConfig, shared: SharedPaths, dht: DHT, dht_thread: DhtThread, loop: LoopThread
    ):  # fmt: skip
        """Prepares the data, builds the model, and opens the swarm at the newest checkpoint or at the beginning."""
        self._config, self._shared = config, shared
        self._prepared = _prepare(config, shared)
        self._validation = TokenDataset(self._prepared.validation, config.data.seq_length)
        self._wanted = config.samples_wanted(len(TokenDataset(self._prepared.train, config.data.seq_length)))
        self._model = build_model(
            config.model, vocab_size=VOCAB_SIZE, seq_length=config.data.seq_length, seed=config.session.seed
        )
        self._checkpoint_folder = shared.checkpoints / config.session.id
        self._checkpoint_rounds = math.ceil(config.checkpoint.interval / config.diloco.inner_steps)
        self._reporter = StatusReporter(
            shared.run_dir(config.session.id, PEER_NAME), session=config.session.id, peer=PEER_NAME,
            interval_s=config.monitoring.status_interval_s,
        )  # fmt: skip
        self._observer = SessionObserver(
            config,
            self._newest_state(),
            samples_wanted=self._wanted,
            dht=dht,
            dht_thread=dht_thread,
            loop=loop,
        )
        self._reporter.start()
        self._describe()
        self._report_state()
        self._evaluate()

    def _newest_state(self) -> OuterState:
        saved = load_newest_outer_checkpoint(self._checkpoint_folder)
        if saved is None:
            return OuterState.initial(flatten_parameters(self._model))
        counters = {name: int(saved.metadata[name]) for name in ("round", "samples", "cursor")}
        return OuterState(saved.parameters, saved.momentum, **counters)

    def _describe(self) -> None:
        train, validation = TokenDataset(self._prepared.train, 1).tokens, self._validation.tokens
        baselines = {"bytes": byte_baseline(train, validation), "bigrams": bigram_baseline(train, validation)}
        self._reporter.update(
            samples_wanted=self._wanted, parameters=self._observer.state.parameters.numel(), baselines=baselines,
            device="cpu",
        )  # fmt: skip
        self._reporter.phase(
            "training",
            message=f"the swarm is open at round {self._observer.state.round}; {self._wanted} samples wanted",
        )

    def following(self) -> Following:
        """What the session's nodes need."""
        path = self._prepared.train
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        asset = Asset(name=path.name, sha256=digest, size_bytes=path.stat().st_size)
        return Following(session=self._config.session.id, assets=[asset], asset_folder=str(path.parent))

    def follow(self) -> bool:
        """Catch up with the swarm; True once the run is complete."""
        if self._is_complete():
            return True
        if not self._observer.follow():
            self._reporter.update(peers=len(self._observer.trainers))
            return False
        self._report_state()
        complete = self._is_complete()
        round_ = self._observer.state.round
        if complete or round_ % self._config.monitoring.evaluation_rounds == 0:
            self._evaluate()
        if complete or round_ % self._checkpoint_rounds == 0:
            self._save_checkpoint()
        return complete

    def _is_complete(self) -> bool:
        return self._observer.state.samples >= self._wanted

    def _report_state(self) -> None:
        state, digest = self._observer.state, self._observer.digest
        at_same_round = {held for round_, held in self._observer.trainers.values() if round_ == state.round}
        self._reporter.update(
            status="training" if state.round else "waiting", round=state.round, samples_committed=state.samples,
            digest=digest, peers=len(self._observer.trainers), bytes_received=self._observer.bytes_received,
        )  # fmt: skip
        agrees = at_same_round <= {digest}
        self._reporter.record(
            "round", f"round {state.round}: {'the digest is' if agrees else 'some peers do not hold'} the swarm's",
            level="info" if agrees else "warning",
            data={"round": state.round, "digest": digest, "samples": state.samples, "digestsEqual": agrees},
        )  # fmt: skip

    def _evaluate(self) -> None:
        state, config = self._observer.state, self._config
        load_flat_parameters(self._model, state.parameters)
        result = evaluate(
            self._model, self._validation, batches=config.monitoring.evaluation_batches,
            batch_size=config.train.batch_size, precision=config.model.precision,
        )  # fmt: skip
        self._reporter.update(validation_loss=result.loss, validation_round=state.round, accuracy=result.accuracy)
        self._reporter.record(
            "evaluation", f"round {state.round}: validation loss {result.loss:.4f}",
            data={"round": state.round, "samples": state.samples, "validationLoss": result.loss,
                  "accuracy": result.accuracy, "tokens": result.tokens},
        )  # fmt: skip

    def _save_checkpoint(self) -> None:
        state = self._observer.state
        save_outer_checkpoint(
            self._checkpoint_folder, parameters=state.parameters, momentum=state.momentum,
            metadata={"round": state.round, "samples": state.samples, "cursor": state.cursor,
                      "digest": self._observer.digest},
        )  # fmt: skip

    def save_final_model(self) -> Path:
        """Export the outer parameters, tokenizer included; the path loads with `from_pretrained`."""
        self._observer.follow()
        self._reporter.phase("finishing", message="saving the final model")
        tokenizer = byte_tokenizer()
        load_flat_parameters(self._model, self._observer.state.parameters)
        output = self._config.checkpoint.output_path
        path = Path(output) / "final" if output else self._shared.final_model(self._config.session.id)
        export_model(self._model, tokenizer, path)
        sample = generate_text(
            self._model,
            tokenizer,
            SAMPLE_PROMPT,
            max_new_tokens=SAMPLE_TOKENS,
            seed=self._config.session.seed,
        )
        self._reporter.update(model_path=str(path))
        self._reporter.record(
            "log",
            f"the model is saved at {path}",
            data={"modelPath": str(path), "sample": SAMPLE_PROMPT + sample},
        )
        state = "completed" if self._is_complete() else "stopped"
        self._reporter.phase("done", "completed" if state == "completed" else "stopped", message=f"the run is {state}")
        return path

    def close(self) -> None:
        """Leave the session's swarm; its files stay."""
        if self._observer.state.round > 0:
            self._save_checkpoint()
        self._observer.close()
        self._reporter.stop()


def _prepare(config: RunConfig, shared: SharedPaths) -> PreparedDataset:
    """The session's token files. A data path is looked for in the data folder only: anybody may ask for one."""
    section = config.data
    if section.data_path is not None:
        folder = (shared.root / "datasets").resolve()
        path = (folder / section.data_path).resolve()
        if not path.is_relative_to(folder):
            raise ConfigError(
                f"{section.data_path} lies outside {folder}", field="data.data_path",
                hint="put the text there and name it relative to that folder",
            )  # fmt: skip
        section = section.model_copy(update={"data_path": str(path)})
    return prepare_dataset(section, seed=config.session.seed, folder=shared.processed_datasets)
