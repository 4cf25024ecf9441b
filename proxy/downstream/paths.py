"""The paths of the data port; which tongue each speaks, and what serves it, is in `server.routes`."""

from __future__ import annotations

from typing import Final

# The native surface: where it takes calls, and what it has beside them.
GENERATION: Final = "/api/v1/services/aigc/text-generation/generation"
MULTIMODAL: Final = "/api/v1/services/aigc/multimodal-generation/generation"
NATIVE: Final = (GENERATION, MULTIMODAL)
NATIVE_MODELS: Final = "/api/v1/models"
TOKENIZER: Final = "/api/v1/tokenizer"
# The compatible surface, under the path that the service has and the one that many clients put behind a host.
COMPATIBLE: Final = ("/compatible-mode/v1", "/v1")
COMPLETIONS: Final = "/chat/completions"
MODELS: Final = "/models"

HEALTH: Final = "/healthz"
