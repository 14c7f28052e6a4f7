"""A race halves its entrants from rung to rung, and gives those that are left more epochs."""

import time

from bbframe.app.race import Entrant, Race


class KeptInOrder(Race):
    """A race that trains nobody: the first half of the entrants goes on."""

    def _run_rung(self, number, entrants, rung):
        kept = [entrant.name for entrant in entrants][: (len(entrants) + 1) // 2]
        self.rungs.append({"folder": f"rung{number}", "kept": kept, **rung})
        return kept


def raced(folder, costs, seconds, max_epochs=50):
    entrants = [Entrant(name, [], cost) for name, cost in costs.items()]
    race = KeptInOrder(folder, [], [], {}, (0,), max_epochs, time.time() + seconds, lambda words: 0)
    return race, race.run(entrants)


def test_those_whom_the_first_rung_had_no_time_for_do_not_come_back(tmp_path):
    race, winner = raced(tmp_path, {"a": 0.5, "b": 0.5, "c": 0.5, "dear": 500.0}, 60)
    assert [rung["entrants"] for rung in race.rungs] == [["a", "b", "c"], ["a", "b"]]
    assert race.rungs[1]["epochs"] > race.rungs[0]["epochs"]
    assert winner == "a"
    assert "dear" in race.notes[0]


def test_who_can_be_trained_in_full_at_once_has_one_rung(tmp_path):
    race, winner = raced(tmp_path, {"a": 0.1, "b": 0.1}, 600, max_epochs=5)
    assert [(rung["entrants"], rung["epochs"]) for rung in race.rungs] == [(["a", "b"], 5)]
    assert winner == "a"


def test_without_time_nobody_is_trained_and_a_note_says_so(tmp_path):
    race, winner = raced(tmp_path, {"a": 5.0}, 1)
    assert (race.rungs, winner) == ([], None)
    assert "give a larger budget=" in race.notes[0]
