"""What a call and a model expect of each other is what they have."""

import inspect

import pytest

from handlehome.relay.call.call import Call
from handlehome.relay.model.interface import Listener, Model, ModelLost
from handlehome.relay.model.openai import OpenAIMessageHandler
from tests.relay_call_doubles import VirtualModel


def methods(protocol: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(method)
        for name, method in inspect.getmembers(protocol, inspect.isfunction)
        if not name.startswith("_")
    }


@pytest.mark.parametrize(
    ("protocol", "implementation"),
    [(Listener, Call), (Model, OpenAIMessageHandler), (Model, VirtualModel)],
)
def test_an_implementation_has_every_method_with_the_same_arguments(
    protocol: type, implementation: type
) -> None:
    theirs = methods(implementation)
    for name, signature in methods(protocol).items():
        assert theirs[name].parameters.keys() == signature.parameters.keys(), name


def test_each_loss_has_a_word_of_its_own() -> None:
    """They stand in logs beside the end reasons of calls."""
    assert len(set(ModelLost)) == 7
    assert all(reason.startswith("model_") for reason in ModelLost)
