"""Rewrites what is expected of every recording: `python -m tests.recordings.accept`. Review the diff."""

from tests.recordings.decoding import openai_recordings, qwen_code_recordings, recordings, written


def main() -> None:
    for recording in (*recordings(), *openai_recordings(), *qwen_code_recordings()):
        recording.expected_path.write_bytes(written(recording.decode([recording.body])))


if __name__ == "__main__":
    main()
