"""Evidence on the checkpointer's disk: bounded, never written over, and found again after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator import evidence_files
from coordinator.evidence_files import EvidenceFiles
from cotrain.swarm.evidence import Evidence, verify
from cotrain.swarm.judgement import Judgement, judge
from tests.swarm_signers import signer
from tests.unit.test_swarm_evidence_service import FACTS, WITNESS, complaint_of, content_of, proof


def kept(files: EvidenceFiles, evidence: Evidence) -> Judgement:
    content = content_of(evidence)
    _, judgement = judge(content, FACTS, witness=evidence.witness, members=4)
    files.keep(content, judgement)
    return judgement


def test_a_proof_is_found_again_as_it_came_and_can_be_checked_by_anybody(tmp_path: Path) -> None:
    judgement = kept(EvidenceFiles(tmp_path / "evidence"), proof())
    (path,) = (tmp_path / "evidence").iterdir()
    assert path.read_bytes() == content_of(proof())
    assert verify(Evidence.model_validate_json(path.read_bytes())) == "proof"
    assert EvidenceFiles(tmp_path / "evidence").proofs() == [judgement]


def test_the_first_proof_against_a_peer_stays_and_testimonies_are_no_proofs(tmp_path: Path) -> None:
    files = EvidenceFiles(tmp_path)
    first = kept(files, proof())
    kept(files, proof(witness=1))
    for witness in (WITNESS, 1, 1):
        kept(files, complaint_of(witness=witness))
    assert files.proofs() == [first]
    accused = first.accused
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [f"proof-{accused}.json", *(f"testimony-{accused}-{signer(number).peer_id}.json" for number in (0, 1))]
    )


def test_no_more_than_so_many_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_files, "MOST_TESTIMONIES", 2)
    files = EvidenceFiles(tmp_path)
    for witness in (0, 1, 3):
        kept(files, complaint_of(witness=witness))
    assert len(list(tmp_path.iterdir())) == 2
    kept(files, proof())
    assert len(files.proofs()) == 1


def test_a_damaged_file_is_passed_over(tmp_path: Path) -> None:
    files = EvidenceFiles(tmp_path)
    judgement = kept(files, proof())
    (tmp_path / f"proof-{signer(0).peer_id}.json").write_bytes(content_of(proof())[:100])
    (tmp_path / "proof-..json").write_text("{}")
    assert files.proofs() == [judgement]
    assert EvidenceFiles(tmp_path / "none").proofs() == []
