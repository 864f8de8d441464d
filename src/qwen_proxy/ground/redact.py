"""The last line of defence before something is printed: takes out what has the shape of a secret. Pure.

It knows no secret, only shapes; what is known to be one is a `Secret` and never gets here.
"""

import re
from typing import Final

from qwen_proxy.ground.secret import MASK

# In this order at one place: a JWT, an API key, a credential behind its scheme or name, a login inside a URL.
_SHAPES: Final = re.compile(
    r"eyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*)?"
    r"|\bsk-[\w-]{4,}"
    r"|\b[Bb]earer +[^\s'\"]+"
    r"|\b[Cc]ookie'?\"?[:=] ?[^\r\n]+"
    r"|\b(?:token|refresh_token|password|passwd|api_key|apikey|secret|ssxmod_itna2?)['\"]?(?:=|: ?)['\"]?[^\s'\"&;,]+"
    r"|://[^\s/@]+@"
)
# Something of each shape, behind letters that are found fast: most texts have none of them.
_MARKS: Final = re.compile(r"eyJ|sk-|earer |ookie|token|passw|api_?key|secret|ssxmod_|://")


def redacted(text: str) -> str:
    """The same text with every such place masked; its name or scheme stays."""
    return _SHAPES.sub(_mask, text) if _MARKS.search(text) else text


def _mask(match: re.Match[str]) -> str:
    found = match[0]
    if found.startswith("://"):
        return f"://{MASK}@"
    if found.startswith("sk-"):
        return f"sk-{MASK}"
    name = re.match(r"[A-Za-z_0-9]+['\"]?(?:[:=] ?['\"]?| +)", found)
    return f"{name[0]}{MASK}" if name and not found.startswith("eyJ") else MASK


def masked_email(email: str) -> str:
    """Enough for the owner to know it by: `al***@example.com`."""
    name, at, host = email.partition("@")
    return f"{name[:2]}{MASK}{at}{host}"
