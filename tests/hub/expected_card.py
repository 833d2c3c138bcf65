"""Write expected_card.md anew, after a change of the card that is meant: `python tests/hub/expected_card.py`."""

from pathlib import Path

from conftest import example_record

from ccsam_hf.hub import render_card

if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(render_card(example_record(), ["groups"]), encoding="utf-8")
