// What the terminal shows at its lower end: foreign lines above, the prompt below. Pure: every call returns
// the bytes to write, so a test can play them to a terminal of its own.
#pragma once

#include <string>
#include <string_view>

#include "chat/prompt_view.h"

namespace bitctl {

class Screen {
 public:
  explicit Screen(int width) : width_(width) {}

  // Writes only the rows that differ from those standing there; the cursor ends at the insertion point.
  std::string draw(PromptFrame frame);

  // Text above the prompt, which stays as it is. A text that ends without '\n' is continued by the next one.
  // The text holds no control characters but '\n' and '\t'.
  std::string print(std::string_view text);
  // A line of its own: an unfinished one is ended first.
  std::string print_line(std::string_view line);
  std::string end_line() { return unfinished_.empty() ? "" : print("\n"); }

  // The terminal has another width now; it has wrapped what stands there itself.
  std::string resize(int width);
  // Everything of the prompt is taken away; the cursor stands where it began.
  std::string take_prompt_away();

 private:
  std::string to_prompt_top() const;
  std::string paint() const;

  int width_;
  PromptFrame frame_;       // as it stands on the screen; no rows: none does
  std::string unfinished_;  // the last row of a line that print() has not ended
};

}  // namespace bitctl
