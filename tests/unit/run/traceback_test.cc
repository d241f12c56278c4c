#include "run/traceback.h"

#include <gtest/gtest.h>

namespace bitctl {
namespace {

constexpr const char* kText =
    "epoch 1\n"
    "Traceback (most recent call last):\n"
    "  File \"/home/u/train.py\", line 31, in <module>\n"
    "    main()\n"
    "  File \"/home/u/model.py\", line 8, in forward\n"
    "    return self.layer(x)\n"
    "           ~~~~~~~~~~^^^\n"
    "  File \"/home/u/.venv/lib/python3.11/site-packages/torch/nn/functional.py\", line 99, in linear\n"
    "    return torch._C._nn.linear(a, b)\n"
    "RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x8 and 9x3)\n";

TEST(LastTraceback, NamesTheUsersInnermostFrame) {
  const Traceback found = last_traceback(kText);
  EXPECT_EQ(found.exception, "RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x8 and 9x3)");
  EXPECT_EQ(found.exception_type, "RuntimeError");
  EXPECT_EQ(found.frame, "/home/u/model.py:8 in forward");
}

TEST(LastTraceback, WhereNoFileIsTheUsersTheInnermostCounts) {
  const Traceback found = last_traceback(
      "Traceback (most recent call last):\n"
      "  File \"<frozen runpy>\", line 198, in _run_module_as_main\n"
      "  File \"/usr/lib/python3.11/json/decoder.py\", line 355, in raw_decode\n"
      "KeyboardInterrupt\n");
  EXPECT_EQ(found.frame, "/usr/lib/python3.11/json/decoder.py:355 in raw_decode");
  EXPECT_EQ(found.exception_type, "KeyboardInterrupt");
}

TEST(LastTraceback, TheLastOneCounts) {
  std::string text = kText;
  text +=
      "\nDuring handling of the above exception, another exception occurred:\n\n"
      "Traceback (most recent call last):\n"
      "  File \"/home/u/train.py\", line 40, in <module>\n"
      "ValueError: second\n";
  EXPECT_EQ(last_traceback(text).exception, "ValueError: second");
  EXPECT_EQ(last_traceback(text).frame, "/home/u/train.py:40 in <module>");
}

TEST(LastTraceback, NothingIsMadeUp) {
  EXPECT_EQ(last_traceback("").exception, "");
  EXPECT_EQ(last_traceback("ValueError: no traceback\n").exception, "");
  const std::string text = kText;
  const std::string cut = text.substr(0, text.find("RuntimeError"));
  EXPECT_EQ(last_traceback(cut).exception, "");
  EXPECT_EQ(last_traceback(cut).frame, "");
}

}  // namespace
}  // namespace bitctl
