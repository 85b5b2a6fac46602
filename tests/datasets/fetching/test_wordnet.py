"""WordNet's own files, laid out as NLTK wants them, and one sentence where there is no source."""

import pytest

from ckfr_helpers.datasets.fetching import wordnet as wordnet_db
from ckfr_helpers.runtime import CkfrError


def test_the_database_is_laid_out_for_nltk(tmp_path, monkeypatch):
    """From a package without `lexnames`, as Debian's, whose files others may write to, as under umask 002."""
    installed = tmp_path / "installed"
    installed.mkdir()
    for name in ("data.noun", "noun.exc", "index.sense"):
        (installed / name).write_text("x\n")
        (installed / name).chmod(0o664)
    (installed / "data.noun").write_text("02129165 05 n 01 lion 0 000 | a lion\n")
    monkeypatch.setattr(wordnet_db, "DEBIAN", installed)
    place = wordnet_db.fetch(tmp_path / "data")
    corpus = place / "corpora" / "wordnet"
    assert {p.name for p in corpus.iterdir()} == {"data.noun", "noun.exc", "index.sense", "lexnames"}
    assert not any(p.stat().st_mode & 0o022 for p in [place, corpus.parent, corpus, *corpus.iterdir()])
    rows = (corpus / "lexnames").read_text().splitlines()
    assert len(rows) == 45
    assert rows[5].split() == ["05", "noun.animal", "1"]
    assert rows[29].split() == ["29", "verb.body", "2"]
    assert rows[44].split() == ["44", "adj.ppl", "3"]
    (corpus / "data.noun").write_text("kept")  # a second call leaves what is there
    assert wordnet_db.fetch(tmp_path / "data") == place
    assert (corpus / "data.noun").read_text() == "kept"


def test_no_source_gives_one_sentence(tmp_path, monkeypatch):
    def no_debian(*_arguments):
        raise CkfrError("There is no apt-get.")

    monkeypatch.setattr(wordnet_db, "DEBIAN", tmp_path / "none")
    monkeypatch.setattr(wordnet_db, "fetch_deb", no_debian)
    with pytest.raises(CkfrError, match=r"no apt-get\..*nltk\.downloader"):
        wordnet_db.fetch(tmp_path / "data")
    assert not (tmp_path / "data" / "wordnet").exists()
