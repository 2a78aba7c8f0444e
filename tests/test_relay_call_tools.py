"""What the assistant can do besides talking."""

from openai.types.realtime.realtime_function_tool import RealtimeFunctionTool

from handlehome.relay.call.tools import END_CALL, TOOLS


def test_every_tool_is_valid_to_the_letter() -> None:
    for tool in TOOLS:
        parsed = RealtimeFunctionTool.model_validate(tool, strict=True)
        assert parsed.model_dump(exclude_unset=True) == tool


def test_tools_have_names_of_their_own() -> None:
    names = [tool["name"] for tool in TOOLS]
    assert len(set(names)) == len(names)
    assert END_CALL["name"] in names
