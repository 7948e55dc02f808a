"""A logger of one's own: a line of recorder.jsonl for everything that it gets."""

import json


class Recorder:
    def __init__(self, run_dir):
        self._file = (run_dir / "recorder.jsonl").open("a")

    def start(self, config):
        self._write(config)

    def log(self, event, step, values):
        self._write({"event": event, "step": step, **values})

    def close(self, summary):
        self._write(summary)
        self._file.close()

    def _write(self, content):
        self._file.write(json.dumps(content) + "\n")
