import pytest

from ccsam_hf._shared.registry import Registry


def registry() -> Registry[object]:
    return Registry("loss", {"focal": "a", "balanced_softmax": "b"})


def test_it_reads_like_a_dict_in_order_of_registration():
    names = registry()
    assert names.register("mine")("c") == "c"
    assert dict(names) == {"focal": "a", "balanced_softmax": "b", "mine": "c"}
    assert "mine" in names
    with pytest.raises(KeyError):
        names["yours"]


def test_it_decorates():
    names = registry()

    @names.register("mine")
    def mine():
        return 1

    assert names.find("mine") is mine
    assert mine() == 1


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"Unknown loss 'focl': did you mean 'focal'\? Choose one of focal, balanced_"):
        registry().find("focl")
    with pytest.raises(ValueError, match=r"Unknown loss 'zzz': Choose one of focal, balanced_softmax\."):
        registry().find("zzz")


def test_a_name_is_given_once():
    names = registry()
    names.register("focal")("a")
    with pytest.raises(ValueError, match="The loss 'focal' is registered already; choose another name"):
        names.register("focal")("other")
    with pytest.raises(ValueError, match="A loss is registered under a name, not ''"):
        names.register("")
