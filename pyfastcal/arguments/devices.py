"""Devices by the names that users give them."""

import torch


def usable(device: torch.device | str) -> torch.device:
    """The device. ValueError for a name that torch does not know, and for a device that this machine or this torch does
    not have, which for other kinds than the CPU and GPUs is tried."""
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device must be one that torch knows, got {device!r}") from error
    if found.type == "cpu":
        return found
    if found.type == "cuda":  # counted: a process that takes another GPU should not wake the first one
        if (found.index or 0) >= (count := torch.cuda.device_count()):
            raise ValueError(f"device must be one of the {count} GPUs here or the CPU, got {str(device)!r}")
        return found
    try:
        torch.ones((), device=found).item()  # nothing can be read back from "meta"
    except Exception as error:  # each kind of device that torch is not built for raises another
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(f"device must be one that can be used here, got {str(device)!r} ({reason})") from error
    return found
