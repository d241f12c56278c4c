#include "chat/one_shot.h"

#include <unistd.h>

#include <utility>

#include "base/exit_code.h"
#include "base/visible_text.h"

namespace bitctl {
namespace {

// How long an input may be silent before the user is told what is waited for.
constexpr auto kInputDelay = std::chrono::seconds(1);

}  // namespace

OneShot::OneShot(const ChatOptions& options, ModelOpener opener) : PipeChat(options, std::move(opener)) {
  // With -p nobody may have meant to write to what happens to be our standard input.
  if (options.prompt)
    loop_.call_after(kInputDelay, [this] {
      if (!submitted_) tell("reading standard input, until its end…");
    });
}

bool OneShot::wants_input() const { return !options_.prompt || !::isatty(STDIN_FILENO); }

void OneShot::input_ended() {
  submitted_ = true;
  std::string prompt = options_.prompt.value_or("");
  if (!input_.empty()) prompt += (prompt.empty() ? "" : "\n") + input_;
  prompt = valid_utf8(prompt);
  while (!prompt.empty() && prompt.back() == '\n') prompt.pop_back();
  if (prompt.find_first_not_of(" \t\r\n") == std::string::npos) {
    complain("no prompt: give -p TEXT, or a text on standard input");
    return end(kUsage);
  }
  session_.submit(prompt);
}

void OneShot::state_changed(const Bootstrap& state) {
  if (state.is<Bootstrap::Failed>() || state.is<Bootstrap::NotAvailable>()) {
    complain(state_text(state));
    return end(kFailed);
  }
  if (waiting_) tell(state.is<Bootstrap::Ready>() ? state_text(state) : "⏳ " + state_text(state));
}

void OneShot::prompt_queued(const Bootstrap& state) {
  waiting_ = true;
  tell("⏳ " + state_text(state));
}

void OneShot::prompt_refused(std::string_view reason, const std::string& text) {
  complain(std::string(reason) + ": " + text);
  end(kFailed);
}

void OneShot::prompt_forwarded(std::string_view reason, const std::string& model, const std::string& url) {
  tell(forwarded_text(reason, model, url));
}

void OneShot::answer_text(std::string_view text) {
  write(::isatty(STDOUT_FILENO) ? visible_text(text, Newlines::keep) : std::string(text));
}

void OneShot::answer_ends(const GenerationEnd& answer) {
  end(answer.reason == StopReason::error ? kFailed : kOk);
  if (answer.reason == StopReason::error) complain(answer.error);
  if (options_.verbose && answer.new_tokens > 0) tell(figures(answer));
}

void OneShot::warning(const std::string& text) { tell(text); }

}  // namespace bitctl
