"""The real checkpointer's process: proofs that it has kept are reported again when it takes a session up."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from queue import Queue

from coordinator.checkpointer_messages import COMMAND, REPORT, Follow, Following, Judged, Ready
from coordinator.evidence_files import EvidenceFiles
from cotrain.config import dump_config
from cotrain.membership.document import write_membership
from cotrain.paths import CHECKPOINTER_KEY, MEMBERSHIP_FILE, SharedPaths
from cotrain.peer_key import load_or_create_peer_key
from cotrain.process import child_environment
from cotrain.request import SessionRequest
from cotrain.swarm.judgement import judge
from tests.membership_fixtures import membership_of
from tests.system import tiny_request
from tests.unit.test_swarm_evidence_service import FACTS, content_of, proof

SESSION = "kept-before"
LIMIT_S = 90.0


def test_a_proof_whose_report_may_have_been_lost_is_reported_again(tmp_path: Path) -> None:
    shared = SharedPaths(tmp_path).create()
    config = shared.generated_config(SESSION)
    config.write_text(dump_config(SessionRequest.model_validate(tiny_request()).to_config(SESSION)))
    run_dir = shared.run_dir(SESSION, "checkpointer")
    _, judgement = judge(content_of(proof()), FACTS, witness=proof().witness, members=3)
    EvidenceFiles(run_dir / "evidence").keep(content_of(proof()), judgement)
    peer = load_or_create_peer_key(tmp_path / CHECKPOINTER_KEY)
    write_membership(run_dir / MEMBERSHIP_FILE, membership_of(tmp_path / "keys", SESSION, peer, role="observe"))

    command = [sys.executable, "-m", "coordinator.checkpointer", "--shared", str(tmp_path)]
    with (tmp_path / "checkpointer.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            env=child_environment(OMP_NUM_THREADS="1"),
        )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    lines: Queue[str] = Queue()
    reader = threading.Thread(target=lambda out=process.stdout: [lines.put(line) for line in out], daemon=True)
    reader.start()
    try:
        assert isinstance(REPORT.validate_json(lines.get(timeout=LIMIT_S)), Ready)
        follow = COMMAND.dump_json(Follow(session=SESSION, config_path=str(config)), by_alias=True)
        process.stdin.write(follow.decode() + "\n")
        process.stdin.flush()
        reports = [REPORT.validate_json(lines.get(timeout=LIMIT_S)) for _ in range(2)]
    finally:
        process.stdin.close()
        try:
            process.wait(20.0)
        finally:
            process.kill()
    assert isinstance(reports[1], Following)
    assert reports[0] == Judged(
        session=SESSION, accused=judgement.accused, witness=judgement.witness, verdict="proof", round=5,
        what=judgement.what,
    )  # fmt: skip
    assert process.returncode == 0
