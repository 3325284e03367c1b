"""How this package was installed: which version, and the commands that install it again, with an extra or kernels."""

import json
import shlex
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse

BRINGS_TORCHVISION = ("clip", "demo")  # through open_clip; each of its releases asks for one release of torch


def package_version() -> str:
    try:
        return metadata.version("pyfastcal")
    except metadata.PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"


def requirement(extra: str = "") -> str:
    """What pip is to install, as on its command line: ``pyfastcal[demo]``, ``-e '/src/pyfastcal[demo]'`` ..."""
    extra = extra and f"[{extra}]"
    tree = Path(__file__).resolve().parents[2]
    if (tree / "pyproject.toml").exists():  # the sources themselves, installed as editable or not at all
        origin = {"url": tree.as_uri(), "dir_info": {"editable": True}}
    else:
        try:
            origin = json.loads(metadata.distribution("pyfastcal").read_text("direct_url.json") or "{}")
        except metadata.PackageNotFoundError:  # a copy of the package
            origin = {}
    if not origin:  # from a package index
        return shlex.quote(f"pyfastcal{extra}")
    url = origin["url"]
    if "dir_info" in origin:
        editable = "-e " * bool(origin["dir_info"].get("editable"))
        return editable + shlex.quote(unquote(urlparse(url).path) + extra)
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    return shlex.quote(f"pyfastcal{extra} @ {url}")


def with_extra(extra: str) -> str:
    """The command that adds an extra and leaves torch as it is, which an unpinned torchvision would not."""
    command = f"pip install {requirement(extra)}"
    return f"{command} torch=={metadata.version('torch')}" if extra in BRINGS_TORCHVISION else command


def again(skipped: bool = False) -> str:
    """The command that builds the kernels, or fails and says why."""
    return f"{'' if skipped else 'PYFASTCAL_BUILD=require '}pip install --force-reinstall --no-deps {requirement()}"
