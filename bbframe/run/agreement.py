"""What the processes of one start agree on before anything is written: each has checked, the first tells the rest.

They meet in a store of torch's at the address that Lightning's process group has later, and which it then shares. The
store of torchrun's agent outlives the processes, so what an earlier start has left in it must not be taken for new:
the first process removes it, and every other repeats its question, under a word that it has just made up, until it has
an answer under that word. What it has heard it says under a word of the first process. The process group would take
the addresses of ended processes for those of new ones, so the first process serves it a store of this start alone.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bbframe.run.processes import launcher, rank, started

PATIENCE = 1800.0  # seconds that processes wait for each other, as in torch's process groups
PAUSE = 0.05
PORT = "port of the process group"
_kept: list[Any] = []  # the stores: the first process serves them as long as it lives

Facts = dict[str, Any]


class ToldByFirst(ValueError):
    """An error that the first process says: the others end without a word."""


@dataclass(frozen=True)
class Meeting:
    """Where the processes of a start meet, how many they are, and which this one is.

    `served` says that torchrun's agent serves the store.
    """

    rank: int
    size: int
    address: str
    port: int
    served: bool = False

    def agree(self, error: ValueError | None, facts: Facts, make: Callable[[list[Facts]], Facts]) -> Facts:
        """What the first process makes of the `facts` that all give, once all are without an `error`.

        Raises ValueError in every process when there is an error in one.
        """
        answer = (self._lead if self.rank == 0 else self._follow)(self._store(), error, facts, make)
        if port := answer.pop(PORT, None):
            os.environ |= {"MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "False"}
        return answer

    def _store(self) -> Any:
        from torch.distributed import TCPStore

        hosts = self.rank == 0 and not self.served
        if not hosts:
            self._wait_until_served()
        try:
            store = TCPStore(
                self.address,
                self.port,
                self.size,
                hosts,
                timedelta(seconds=60),
                wait_for_workers=False,
                multi_tenant=True,
            )
        except RuntimeError as error:
            raise ValueError(
                f"the processes cannot meet at MASTER_ADDR={self.address} MASTER_PORT={self.port}: "
                f"{str(error).splitlines()[0]}; give another MASTER_PORT"
            ) from error
        _kept.append(store)
        return store

    def _new_store(self) -> Facts:
        """The port of a store of this start alone, where torchrun's agent serves the one that they meet in."""
        if not self.served:
            return {}
        from torch.distributed import TCPStore

        _kept.append(TCPStore(self.address, 0, self.size, True, wait_for_workers=False, multi_tenant=True))
        return {PORT: _kept[-1].port}

    def _wait_until_served(self) -> None:
        """Wait for the server, in a way that a signal can end."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection((self.address, self.port), timeout=5).close()
                return
            except OSError as error:
                if time.monotonic() > until:
                    raise ValueError(
                        f"process {self.rank} of {self.size}: nothing answers at MASTER_ADDR={self.address} "
                        f"MASTER_PORT={self.port} ({error}); start all processes of the run"
                    ) from error
            time.sleep(PAUSE)

    def _lead(self, store: Any, error: ValueError | None, facts: Facts, make: Callable[[list[Facts]], Facts]) -> Facts:
        mine = secrets.token_hex(8)
        words: dict[int, str] = {}  # of each other process, as it was last answered
        answer: Facts = {}
        for i in self._others():
            store.delete_key(f"bbframe/asks/{i}")
        until = time.monotonic() + PATIENCE
        while True:
            asked = {i: store.get(f"bbframe/asks/{i}").decode() for i in self._others() if _has(store, f"asks/{i}")}
            fresh = asked != words and len(asked) == self.size - 1
            if fresh and not answer.get("error"):
                questions = {i: json.loads(_get(store, f"question/{word}")) for i, word in asked.items()}
                theirs = next(((i, q["error"]) for i, q in questions.items() if q["error"]), None)
                if error is None and theirs is not None:
                    error = ValueError(f"process {theirs[0]}: {theirs[1]}")
                if error is None and not answer:
                    try:
                        answer = make([facts, *(questions[i]["facts"] for i in sorted(questions))]) | self._new_store()
                    except ValueError as found:
                        error = found
                if error is not None:
                    answer = {"error": str(error) or "an error"}
            if fresh:
                for i, word in asked.items():
                    if words.get(i) != word:
                        store.set(f"bbframe/answer/{word}", json.dumps({**answer, "by": mine}))
                words = asked
            if len(words) == self.size - 1 and all(_has(store, f"heard/{mine}/{w}") for w in words.values()):
                break
            if time.monotonic() > until:
                missing = ", ".join(str(i) for i in self._others() if i not in asked)
                error = error or ValueError(
                    f"{self.size} processes were to meet, and after {PATIENCE / 60:.0f} minutes there is no word of "
                    f"{missing or 'some'}; start all processes of the run"
                )
                break
            time.sleep(PAUSE)
        if error is not None:
            raise error
        return answer

    def _follow(
        self, store: Any, error: ValueError | None, facts: Facts, make: Callable[[list[Facts]], Facts]
    ) -> Facts:
        word = secrets.token_hex(8)
        store.set(f"bbframe/question/{word}", json.dumps({"error": error and str(error), "facts": facts}))
        until = time.monotonic() + PATIENCE
        try:
            while not _has(store, f"answer/{word}"):
                store.set(f"bbframe/asks/{self.rank}", word)
                if time.monotonic() > until:
                    raise ValueError(f"process {self.rank} of {self.size}: the first process gives no answer")
                time.sleep(PAUSE)
            answer: Facts = json.loads(_get(store, f"answer/{word}"))
            store.set(f"bbframe/heard/{answer.pop('by')}/{word}", "1")
        except RuntimeError as lost:  # torch's, of the connection
            raise ToldByFirst("the first process has ended") from lost
        if answer.get("error"):
            raise ToldByFirst(answer["error"])
        return answer

    def _others(self) -> range:
        return range(1, self.size)


def _has(store: Any, key: str) -> bool:
    return bool(store.check([f"bbframe/{key}"]))


def _get(store: Any, key: str) -> str:
    return str(store.get(f"bbframe/{key}").decode())


def meeting(num_nodes: int, devices: Any) -> Meeting | None:
    """The meeting of this start, None where one process starts the run.

    `num_nodes` and `devices` are the options, which say how many a person starts by hand on Lightning's own terms.
    Raises ValueError when it is not said where they meet.
    """
    if launcher() != "lightning":
        number, size = rank(), started()
    else:
        by_hand = "LOCAL_RANK" in os.environ
        each = devices if by_hand and isinstance(devices, int) else 1
        node, local = int(os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", "0"))), 0
        local = int(os.environ["LOCAL_RANK"]) if by_hand else 0
        number, size = node * each + local, num_nodes * each
        if size > 1 and "MASTER_PORT" not in os.environ:
            raise ValueError(
                f"trainer: num_nodes={num_nodes} needs MASTER_ADDR, MASTER_PORT and NODE_RANK in the environment of "
                "each node; or start it with torchrun, or with Slurm's srun"
            )
    if size <= 1:
        return None

    from bbframe.run.cluster import cluster_environment

    place = cluster_environment()
    served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return Meeting(number, size, place.main_address, place.main_port, served)
