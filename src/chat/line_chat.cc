#include "chat/line_chat.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "base/exit_code.h"
#include "base/visible_text.h"

namespace bitctl {
namespace {

// In the order of Bootstrap::stage.
constexpr std::array<std::string_view, 6> kStates{"initializing", "downloading", "loading",
                                                  "ready",        "failed",      "not_available"};
static_assert(kStates.size() == std::variant_size_v<decltype(Bootstrap::stage)>);

constexpr size_t kMostWaiting = 100;  // prompts that have been read and not been asked

double milliseconds(Duration duration) { return as_seconds(duration) * 1e3; }

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r") == std::string_view::npos; }

}  // namespace

Result<ChatMessage> message_of_line(std::string_view line) {
  const auto json = parse_strict_json(line);
  if (!json)
    return fail(ErrorKind::invalid, fmt::format("byte {}: {}", json.error().byte, json.error().reason));
  const std::string role = json->is_object() ? get_text(*json, "role") : "";
  const auto content = json->is_object() ? json->find("content") : json->end();
  const bool has_content = json->is_object() && content != json->end() && content->is_string();
  if ((role != "user" && role != "system") || !has_content || json->size() != 2)
    return fail(ErrorKind::invalid, R"(not a message; {"role": "user" or "system", "content": "…"} is one)");
  return ChatMessage{role, content->get<std::string>()};
}

LineChat::LineChat(const ChatOptions& options, ModelOpener opener)
    : PipeChat(options, std::move(opener)), json_(options.input == ChatInput::jsonl) {}

void LineChat::input(std::string_view bytes) {
  partial_ += bytes;
  size_t begin = 0;
  for (size_t end = 0; (end = partial_.find('\n', begin)) != std::string::npos; begin = end + 1)
    take_line(std::string_view(partial_).substr(begin, end - begin));
  partial_.erase(0, begin);
  next();
}

bool LineChat::has_enough() const { return waiting_.size() >= kMostWaiting; }

void LineChat::input_ended() {
  take_line(partial_);
  at_end_ = true;
  next();
}

void LineChat::take_line(std::string_view line) {
  ++lines_;
  if (ended() || is_blank(line)) return;
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (!json_) return waiting_.push_back({"user", valid_utf8(line)});
  auto message = message_of_line(line);
  if (message) return waiting_.push_back(std::move(*message));
  complain(fmt::format("line {}: {}", lines_, message.error().message));
  end(kUsage);
}

void LineChat::next() {
  while (!asked_ && !ended() && !waiting_.empty()) {
    const ChatMessage message = std::move(waiting_.front());
    waiting_.pop_front();
    if (message.role == "system") {
      session_.set_system(message.content);
      continue;
    }
    asked_ = true;
    session_.submit(message.content);
  }
  if (!has_enough()) read_input();
  if (at_end_ && !asked_ && waiting_.empty()) end(failed_ ? kFailed : kOk);
}

void LineChat::event(std::string_view name, Json fields) {
  Json event{{"event", name}};
  event.update(fields);
  write(dump_line(event) + "\n");
}

void LineChat::state_changed(const Bootstrap& state) {
  if (json_) event("state", {{"state", kStates[state.stage.index()]}, {"text", state_text(state)}});
  if (!state.is<Bootstrap::Failed>() && !state.is<Bootstrap::NotAvailable>()) return;
  complain(state_text(state));
  end(kFailed);
}

void LineChat::progressed() {
  const auto download = session_.download();
  if (!json_ || !download) return PipeChat::progressed();
  const auto& now = std::get<Bootstrap::Downloading>(download->stage);
  event("download", {{"model", download->model},
                     {"file", now.file},
                     {"index", now.index},
                     {"count", now.count},
                     {"bytes", now.bytes},
                     {"total", now.total}});
}

void LineChat::prompt_queued(const Bootstrap& state) {
  if (json_) return event("queued", {{"reason", "model_not_ready"}, {"text", state_text(state)}});
  tell("⏳ " + state_text(state));
}

void LineChat::prompt_refused(std::string_view reason, const std::string& text) {
  failed_ = true;
  asked_ = false;
  if (json_) return event("refused", {{"reason", reason}, {"text", text}});
  complain(fmt::format("{}: {}", reason, text));
}

void LineChat::prompt_forwarded(std::string_view reason, const std::string& model, const std::string& url) {
  forwarded_ = true;
  if (json_) return event("forwarded", {{"reason", reason}, {"model", model}, {"url", url}});
  tell(forwarded_text(reason, model, url));
}

void LineChat::answer_text(std::string_view text) {
  if (json_) {
    answer_ += text;
    return event("text", {{"text", text}});
  }
  write(::isatty(STDOUT_FILENO) ? visible_text(text, Newlines::keep) : std::string(text));
}

void LineChat::answer_ends(const GenerationEnd& answer) {
  asked_ = false;
  failed_ |= answer.reason == StopReason::error;
  if (json_) {
    Json fields{
        {"content", std::exchange(answer_, "")}, {"stop", name_of(answer.reason)},
        {"prompt_tokens", answer.prompt_tokens}, {"reused_tokens", answer.reused_tokens},
        {"new_tokens", answer.new_tokens},       {"first_token_ms", milliseconds(answer.to_first_token)},
        {"total_ms", milliseconds(answer.total)}};
    if (answer.reason == StopReason::error) fields["reason"] = answer.error;
    if (std::exchange(forwarded_, false)) fields["source"] = "remote";
    event("answer", fields);
  } else {
    write("\n");
    if (answer.reason == StopReason::error) complain(answer.error);
    if (options_.verbose && answer.new_tokens > 0) tell(figures(answer));
  }
  // Not from within the session's own call: it has not ended the turn yet.
  loop_.call_after(Duration::zero(), [this] { next(); });
}

void LineChat::warning(const std::string& text) {
  if (json_) return event("warning", {{"text", text}});
  tell(text);
}

}  // namespace bitctl
