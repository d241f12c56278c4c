"""The texts that the project promised word for word: each is said by one place and heard by a test of its output."""

import pathlib
import subprocess

import pytest

from bitctl import pulse

ROOT = pathlib.Path(__file__).parents[2]

# The promised text: (where it is said, as it stands there), (the test that hears it, as it stands there).
TEXTS = {
    "No training in progress": (("src/pulse/status.cc", "No training in progress"),
                                ("tests/system/test_status.py", '"No training in progress"')),
    "Process unresponsive (stale pulse)": (("src/pulse/status.cc", "Process unresponsive (stale pulse)"),
                                           ("tests/system/test_status.py", "Process unresponsive (stale pulse)")),
    "Training status is stale (>60s), converting to error": (
        ("src/pulse/follow.cc", "Training status is stale (>60s), converting to error"),
        ("tests/system/test_status.py", "Training status is stale (>60s), converting to error")),
    "Failed to parse training status: {}": (("src/pulse/follow.cc", "Failed to {} training status: {}"),
                                            ("tests/system/test_status.py", "Failed to parse training status: ")),
    "Failed to read training status: {}": (("src/pulse/follow.cc", '"parse" : "read"'),
                                           ("tests/unit/pulse/follow_test.cc", "Failed to read training status: ")),
    "Training status file unreadable, using cached status: {}": (
        ("src/pulse/follow.cc", "Training status file unreadable, using cached status: {}"),
        ("tests/system/test_status.py", "Training status file unreadable, using cached status: running")),
    "Emitting training status: {} (epoch {}/{})": (
        ("src/pulse/follow.cc", "Emitting training status: {} (epoch {}/{})"),
        ("tests/system/test_status.py", "Emitting training status: done (epoch 3/3)")),
    "Training finished with status: {}": (("src/pulse/follow.cc", "Training finished with status: {}"),
                                          ("tests/system/test_status.py", "Training finished with status: done")),
    "Failed to emit status: {}": (("src/commands/status.cc", "Failed to emit status: {}"),
                                  ("tests/system/test_status.py", "Failed to emit status: cannot write stdout")),
    "Polling error: {}": (("src/pulse/follow.cc", "Polling error: "),
                          ("tests/unit/pulse/follow_test.cc", "Polling error: ")),
    "Failed to get app data dir": (("src/run/run_folder.cc", "Failed to get app data dir"),
                                   ("tests/system/test_status.py", "Failed to get app data dir: ")),
    "training_status_update": (("src/commands/status.cc", '"training_status_update"'),
                               ("tests/system/test_status.py", '{"event": "training_status_update", ')),
    "[TrainingPanel] Status update:": (("src/pulse/follow.cc", "[TrainingPanel] Status update: "),
                                       ("tests/system/test_status.py", "debug: [TrainingPanel] Status update")),
    "Epoch {} / {} ({:.1f}%)": (("src/pulse/view.cc", "Epoch {} / {} ({:.1f}%)"),
                                ("tests/system/test_status.py", '"Epoch 1.5 / 3 (50.0%)", ')),
    "Loss: {:.4f}": (("src/pulse/view.cc", "Loss: {:.4f}"), ("tests/system/test_status.py", '"Loss: 0.3420", ')),
    "Last update: {}s ago": (("src/pulse/view.cc", "Last update: "),
                             ("tests/system/test_status.py", r'r"Last update: \d+s ago"')),
    "❌ {message}": (("src/pulse/view.cc", '"❌ " + visible_text(status.message)'),
                    ("tests/system/test_status.py", "❌ CUDA out of memory\\n")),
    "✅ Training complete! Final loss: {:.4f}": (
        ("src/pulse/view.cc", "✅ Training complete! Final loss: {:.4f}"),
        ("tests/system/test_status.py", "✅ Training complete! Final loss: 0.1270\\n")),
    "⏸️ No training in progress": (("src/pulse/view.cc", "⏸️ No training in progress"),
                                   ("tests/system/test_status.py", "⏸️ No training in progress\\n")),
    "Profile: {}": (("src/pulse/view.cc", "Profile: "), ("tests/system/test_status.py", "Profile: lora\\n")),
    "Dataset: {}": (("src/pulse/view.cc", "Dataset: "), ("tests/system/test_status.py", "Dataset: chitchat\\n")),
    "Unknown": (("src/pulse/view.h", 'profile = "Unknown"'),
                ("tests/system/test_status.py", '["Profile: Unknown", "Dataset: Unknown"]')),
    "Training completed successfully": (("python/bitctl/pulse.py", "Training completed successfully"),
                                        ("python/tests/test_pulse.py", "Training completed successfully")),
    "Type a message... (Ctrl+Enter to send)": (
        ("src/chat/prompt_view.cc", "Type a message... ({} to send)"),
        ("tests/system/test_chat_terminal.py", "Type a message... (Ctrl+Enter to send)")),
    "Initializing...": (("src/chat/bootstrap.cc", '"Initializing..."'),
                        ("tests/unit/chat/bootstrap_test.cc", '"Initializing..."')),
    "Downloading Qwen 3B (2/4): tokenizer.json": (
        ("src/chat/bootstrap.cc", '"Downloading {} ({}/{}): {}"'),
        ("tests/unit/chat/bootstrap_test.cc", '"Downloading Qwen 3B (2/4): tokenizer.json"')),
    "Loading Qwen 3B...": (("src/chat/bootstrap.cc", '"Loading {}..."'),
                           ("tests/unit/chat/bootstrap_test.cc", '"Loading Qwen 3B..."')),
    "✓ Qwen 3B ready": (("src/chat/bootstrap.cc", '"✓ {} ready"'),
                        ("tests/unit/chat/bootstrap_test.cc", '"✓ Qwen 3B ready"')),
    "✗ Failed: network error": (("src/chat/bootstrap.cc", '"✗ Failed: {}"'),
                                ("tests/unit/chat/bootstrap_test.cc", '"✗ Failed: network error"')),
    # The seed forwards to a service that bitctl does not know; what stands behind the dash is what happens.
    "⚠ Offline mode - model not available": (("src/chat/bootstrap.cc", "⚠ Offline mode - model not available"),
                                             ("tests/system/test_chat_pipe.py", "⚠ Offline mode - model not available")),
    "⏳ {status_message}": (("src/chat/repl.cc", '"⏳ " + state_text(state)'),
                           ("tests/system/test_chat_terminal.py", "⏳ Loading tiny...")),
    "[REPL ready in 87ms]": (("src/chat/repl.cc", "[REPL ready in {:.0f}ms]"),
                             ("tests/system/test_chat_terminal.py", r"\[REPL ready in \d+ms\]")),
    "[=====>    ] 45% (2.1GB / 4.7GB)": (("src/chat/bootstrap.cc", "[{:<10}] {:.0f}% ({:.1f}GB / {:.1f}GB)"),
                                         ("tests/unit/chat/bootstrap_test.cc", "[=====>    ] 45% (2.1GB / 4.7GB)")),
    "⏳ Downloading Qwen-2.5-3B (first time only)...": (
        ("src/chat/repl.cc", "⏳ Downloading {} (first time only)..."),
        ("tests/system/test_chat_download.py", "⏳ Downloading org/tiny (first time only)...")),
    "⏳ Loading model...": (("src/chat/repl.cc", "⏳ Loading model..."),
                           ("tests/system/test_chat_terminal.py", "⏳ Loading model...")),
    "✓ Model ready - future queries will use local generation": (
        ("src/chat/repl.cc", "✓ Model ready - future queries will use local generation"),
        ("tests/system/test_chat_terminal.py", "✓ Model ready - future queries will use local generation")),
}
# A trainer's own words, shown as they are.
MESSAGES = ["Starting epoch 1/3", "epoch 1/3, step 150/800", "Training completed successfully"]


def stands_in(file, text):
    return text in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("text", TEXTS)
def test_it_is_said_and_heard(text):
    for file, literal in TEXTS[text]:
        assert stands_in(file, literal), f"{text!r} is gone from {file}"
        assert not stands_in(file, literal[:-1] + "\x00"), "the control"


@pytest.mark.parametrize("message", MESSAGES)
def test_the_words_of_a_trainer_are_shown_as_they_are(bitctl, tmp_path, message):
    file = tmp_path / "training_status.json"
    pulse.write_running_status(file, 1, 3, 0.5, message)
    shown = subprocess.run([bitctl, "status", file], capture_output=True, text=True, timeout=60, check=True).stdout
    assert message in shown.splitlines()
