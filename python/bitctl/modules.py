"""What a spare has to know of this process to stand in for the next attempt (see bitctl.spare)."""

import json
import os
import site
import sys


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def objection():
    """What keeps a second interpreter of this command line from waiting in its start-up; empty where nothing does."""
    if sys.flags.no_site or sys.flags.ignore_environment:
        return "python runs with %s" % ("-I" if sys.flags.isolated else "-S" if sys.flags.no_site else "-E")
    if _package_home() not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        return "PYTHONPATH does not reach the script"
    return ""


def handed_over(environ):
    """A descriptor with the list, as JSON:

    `modules`: names of what was imported from site-packages, the standard library and bitctl, in order;
    `own`: {name: file} of what came from elsewhere;  `environ`: the variables, before the training changed any.
    """
    home = _package_home()
    folders = tuple(os.path.join(f, "") for f in (os.path.dirname(os.__file__), *_site_folders(), os.path.join(home, "bitctl")))
    main = sys.modules["__main__"]  # multiprocessing has a second name for it
    modules, own = [], {}
    for name, module in list(sys.modules.items()):
        # Not getattr: lazy modules import when they are asked for something.
        file = getattr(module, "__dict__", {}).get("__file__")
        if module is main or not isinstance(file, str) or not os.path.isabs(file):
            continue
        if file.startswith(folders):
            modules.append(name)
        else:
            own[name] = file
    fd = os.memfd_create("bitctl-modules", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(json.dumps({"modules": modules, "own": own, "environ": environ}).encode())
    return fd


def _package_home():
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _site_folders():
    return [*site.getsitepackages(), site.getusersitepackages()]
