"""Which paths of an engine clients may ask for; the others are its operator's."""

from urllib.parse import unquote_to_bytes

HEALTH = b"/health"  # the router's own
SIZED = (b"/v1/completions", b"/v1/chat/completions")
_API = b"/v1/"
_PASSED = (b"/tokenize", b"/detokenize", b"/version")
_KEPT = (b"/v1/load_lora_adapter", b"/v1/unload_lora_adapter")  # would change one engine of many
WORDS = "the router passes on /v1/..., /tokenize, /detokenize and /version"


def passed_on(path: bytes) -> bool:
    """Tell whether a path is for clients; one that climbs (`/v1/../sleep`, also encoded) is not."""
    segments = unquote_to_bytes(path).split(b"/")
    if b".." in segments or b"." in segments:
        return False
    return path in _PASSED or (path.startswith(_API) and path not in _KEPT)
