"""huggingface_hub as a client of the test Hub and as a user of the cache; called by crates/hub/tests/python.rs.

Everything comes from the environment (HF_ENDPOINT, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_TOKEN) and the arguments; the answer is one
line of JSON.
"""

import json
import sys
from pathlib import Path

import huggingface_hub
from huggingface_hub.utils import WeakFileLock

NEEDED = ["config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab.txt"]


def snapshot(repo, revision):
    """Downloads a snapshot, or finds it in the cache."""
    path = huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=NEEDED)
    files = {file.name: file.stat().st_size for file in sorted(Path(path).iterdir())}
    return {"path": path, "files": files}


def scan(_repo, _revision):
    """What Python finds in the cache, and what it does not like there."""
    cache = huggingface_hub.scan_cache_dir()
    repos = {
        repo.repo_id: {
            "refs": {name: revision.commit_hash for name, revision in repo.refs.items()},
            "files": sorted(file.file_name for revision in repo.revisions for file in revision.files),
        }
        for repo in cache.repos
    }
    return {"repos": repos, "warnings": [str(warning) for warning in cache.warnings]}


def refused(repo, revision):
    """The class of the error that a download ends with."""
    try:
        huggingface_hub.hf_hub_download(repo, "config.json", revision=revision)
    except Exception as error:  # noqa: BLE001
        return {"error": type(error).__name__}
    return {"error": None}


def lacking(repo, revision):
    """The class of the error for a file that is not there."""
    try:
        huggingface_hub.hf_hub_download(repo, "missing.json", revision=revision)
    except Exception as error:  # noqa: BLE001
        return {"error": type(error).__name__}
    return {"error": None}


def hold(lock, _revision):
    """Holds a lock until the standard input ends."""
    Path(lock).parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        print(json.dumps({"held": True}), flush=True)
        sys.stdin.read()
    return {"held": False}


if __name__ == "__main__":
    work, target, *rest = sys.argv[1:]
    commands = {f.__name__: f for f in (snapshot, scan, refused, lacking, hold)}
    print(json.dumps(commands[work](target, rest[0] if rest else None)), flush=True)
