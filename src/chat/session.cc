#include "chat/session.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

namespace bitctl {
namespace {

constexpr const char* kAnswering = "an answer is being written; Ctrl+C stops it";

}  // namespace

void ChatSession::submit(std::string prompt) {
  const Routing routing = route();
  if (routing.route == Route::queue || routing.route == Route::explain)
    spdlog::info("prompt deferred reason={}", routing.reason);
  switch (routing.route) {
    case Route::local:
      if (!turn_ && !switching_ && !wanted_) return begin_turn(std::move(prompt), false);
      queue_.push_back(std::move(prompt));
      return;
    case Route::forward:
      if (!turn_ && queue_.empty()) return forward_prompt(std::move(prompt), false);
      queue_.push_back(std::move(prompt));
      return;
    case Route::queue:
      queue_.push_back(std::move(prompt));
      return view_.prompt_queued(state_);
    case Route::explain:
      return view_.prompt_refused(routing.reason, state_text(state_));
  }
}

void ChatSession::next_turn() {
  if (queue_.empty() || state_.is<Bootstrap::Ready>()) remote_failed_ = false;
  if (turn_ || switching_ || wanted_ || queue_.empty()) return;
  const Route next = route().route;
  if (next != Route::local && next != Route::forward) return;
  std::string prompt = std::move(queue_.front());
  queue_.pop_front();
  next == Route::local ? begin_turn(std::move(prompt), true) : forward_prompt(std::move(prompt), true);
}

Routing ChatSession::route() const {
  return route_prompt(state_, options_.no_wait, !options_.remote.url.empty() && !remote_failed_);
}

void ChatSession::begin_turn(std::string prompt, bool was_queued, size_t replaces) {
  turn_ = Turn{.id = next_turn_++, .prompt = std::move(prompt), .replaces = replaces};
  view_.answer_begins(turn_->prompt, was_queued);
  encode();
}

// What the model reads, where `prompt` comes next; an empty one: as it stands.
Json ChatSession::messages(std::string_view prompt, size_t replaces) const {
  Json messages = Json::array();
  if (!conversation_.system.empty())
    messages.push_back({{"role", "system"}, {"content", conversation_.system}});
  for (size_t i = first_kept_; i < conversation_.messages.size() - replaces; ++i)
    messages.push_back(
        {{"role", conversation_.messages[i].role}, {"content", conversation_.messages[i].content}});
  if (!prompt.empty()) messages.push_back({{"role", "user"}, {"content", prompt}});
  return messages;
}

void ChatSession::encode() {
  worker_.ask({{"op", "encode"}, {"messages", messages(turn_->prompt, turn_->replaces)}},
              [this, id = turn_->id](Result<Json> reply) { on_encoded(id, std::move(reply)); });
}

void ChatSession::on_encoded(uint64_t turn, Result<Json> reply) {
  if (!turn_ || turn_->id != turn) return;
  GenerationEnd end{.job = turn, .reason = StopReason::error};
  if (!reply) {
    end.error = reply.error().message;
    return end_turn(end);
  }
  GenerationJob job{.id = turn, .prompt = token_ids(*reply, "ids"), .stop_ids = stop_ids_};
  const DecoderInfo& info = generator_.decoder()->info();
  const auto size = static_cast<int64_t>(job.prompt.size());
  const bool droppable = conversation_.messages.size() - turn_->replaces >= first_kept_ + 2;
  const ContextPlan plan =
      plan_context(size, info.max_context, sampling_.max_new_tokens(), options_.when_full, droppable);
  if (plan == ContextPlan::drop_oldest) {
    first_kept_ += 2;
    turn_->dropped += 2;
    return encode();
  }
  const auto outside = std::find_if(job.prompt.begin(), job.prompt.end(),
                                    [&](int32_t id) { return id < 0 || id >= info.vocab_size; });
  if (job.prompt.empty())
    end.error = "the prompt has no tokens";
  else if (outside != job.prompt.end())
    end.error = fmt::format(
        "token {} is not in the model's vocabulary of {}: tokenizer.json belongs to another model", *outside,
        info.vocab_size);
  else if (plan == ContextPlan::too_long)
    end.error = fmt::format("the conversation has {} tokens and the model takes {}{}", size, info.max_context,
                            conversation_.messages.empty() ? "" : "; /clear begins a new one");
  if (!end.error.empty()) return end_turn(end);
  if (turn_->dropped > 0)
    view_.warning(fmt::format("⚠ the context is full: the oldest {} messages are left out from here on",
                              turn_->dropped));
  job.max_new_tokens = std::min(sampling_.max_new_tokens(), info.max_context - size);
  job.sampling = sampling_.options();
  turn_->seed = job.sampling.seed;
  turn_->generating = true;
  generator_.start(std::move(job));
}

void ChatSession::on_generated(const std::vector<GenerationEvent>& events) {
  std::vector<int32_t> ids;
  std::optional<GenerationEnd> end;
  for (const auto& event : events) {
    if (const auto* token = std::get_if<GeneratedToken>(&event))
      ids.push_back(token->id);
    else
      end = std::get<GenerationEnd>(event);
  }
  if (!turn_ || !turn_->generating) return;
  turn_->end = end;
  if (!text_ready_) {  // the worker died: nobody is left to decode
    if (end) end_turn({.job = turn_->id, .reason = StopReason::error, .error = "the text worker ended"});
    return;
  }
  ask_for_text(ids, end.has_value());
}

void ChatSession::ask_for_text(const std::vector<int32_t>& ids, bool last) {
  worker_.ask({{"op", "decode"}, {"stream", turn_->id}, {"ids", ids}, {"last", last}},
              [this, id = turn_->id, last](Result<Json> reply) { on_text(id, std::move(reply), last); });
}

void ChatSession::on_text(uint64_t turn, Result<Json> reply, bool last) {
  if (!turn_ || turn_->id != turn) return;
  if (!reply) {
    generator_.stop();
    if (last) end_turn({.job = turn, .reason = StopReason::error, .error = reply.error().message});
    return;
  }
  const std::string text = get_text(*reply, "text");
  turn_->answer += text;
  if (!text.empty()) view_.answer_text(text);
  if (last) end_turn(*turn_->end);
}

void ChatSession::end_turn(GenerationEnd end) {
  const Turn turn = *std::exchange(turn_, std::nullopt);
  if (generator_.decoder() != nullptr && !turn.forwarded) {
    const auto used = static_cast<int64_t>(end.prompt_tokens + end.new_tokens);
    end.context_full = end.reason == StopReason::length && used >= generator_.decoder()->info().max_context;
  }
  keep(turn, end);
  view_.answer_ends(end);
  if (end.new_tokens > 0) {
    totals_ = {totals_.answers + 1, totals_.new_tokens + end.new_tokens, end};
    const std::string full = context_warning(static_cast<int64_t>(end.prompt_tokens + end.new_tokens),
                                             generator_.decoder()->info().max_context, options_.when_full);
    if (!full.empty() && !std::exchange(warned_of_context_, true)) view_.warning(full);
  }
  if (weights_ready_ && generator_.decoder()->is_lost()) {
    weights_ready_ = false;
    fail_load(end.error);
  }
  for (auto& event : std::exchange(held_, {})) on_loader_event(std::move(event));
  next_turn();
}

// What was said stays said, also when it was cut short; a prompt that got no word was never asked.
void ChatSession::keep(const Turn& turn, const GenerationEnd& end) {
  const bool whole = end.reason == StopReason::end_of_turn || end.reason == StopReason::length;
  if (!whole && turn.answer.empty()) return;
  auto& said = conversation_.messages;
  said.resize(said.size() - turn.replaces);
  said.push_back({"user", turn.prompt});
  said.push_back({"assistant", turn.answer});
  warn_once_of(transcript_.add({.model = turn.forwarded ? turn.model + " (remote)" : model_name(),
                                .system = conversation_.system,
                                .prompt = turn.prompt,
                                .answer = turn.answer,
                                .stop = std::string(name_of(end.reason)),
                                .seed = turn.seed,
                                .prompt_tokens = end.prompt_tokens,
                                .new_tokens = end.new_tokens,
                                .replaces = turn.replaces}));
}

void ChatSession::warn_once_of(const Status& transcript) {
  if (transcript || std::exchange(transcript_failed_, true)) return;
  view_.warning("⚠ this conversation is not kept: " + transcript.error().message);
}

bool ChatSession::stop_answer() {
  if (!turn_) return false;
  if (turn_->forwarded) {
    remote_.end();  // which closes its connection
    end_turn({.job = turn_->id, .reason = StopReason::interrupted});
    return true;
  }
  generator_.stop();
  if (turn_->generating && !turn_->end) return true;
  GenerationEnd end = turn_->end.value_or(GenerationEnd{.job = turn_->id});
  end.reason = StopReason::interrupted;
  // A template may compute for ever. What is asked next waits behind the new worker's load.
  start_worker();
  load_text();
  end_turn(end);
  return true;
}

size_t ChatSession::drop_queue() {
  const size_t size = queue_.size();
  queue_.clear();
  return size;
}

Status ChatSession::clear() { return go_on_with({.system = conversation_.system, .messages = {}}); }

Status ChatSession::go_on_with(Conversation conversation) {
  if (turn_) return fail(ErrorKind::invalid, kAnswering);
  conversation_ = std::move(conversation);
  transcript_.begin(conversation_);
  forget_context();
  return {};
}

Status ChatSession::regenerate() {
  if (turn_) return fail(ErrorKind::invalid, kAnswering);
  if (conversation_.messages.empty()) return fail(ErrorKind::invalid, "there is no answer yet");
  if (!state_.is<Bootstrap::Ready>() || switching_) return fail(ErrorKind::invalid, state_text(state_));
  const auto& said = conversation_.messages;
  first_kept_ = std::min(first_kept_, said.size() - 2);
  begin_turn(said[said.size() - 2].content, false, 2);
  return {};
}

Result<std::string> ChatSession::undo() {
  if (turn_) return fail(ErrorKind::invalid, kAnswering);
  auto& said = conversation_.messages;
  if (said.empty()) return fail(ErrorKind::invalid, "there is nothing to take back");
  std::string prompt = std::move(said[said.size() - 2].content);
  said.resize(said.size() - 2);
  warn_once_of(transcript_.undo(2));
  first_kept_ = std::min(first_kept_, said.size());
  return prompt;
}

void ChatSession::forget_context() {
  first_kept_ = 0;
  warned_of_context_ = false;
}

void ChatSession::show(Json request) {
  if (!text_ready_) return view_.warning("not yet: " + state_text(state_));
  worker_.ask(std::move(request), [this](Result<Json> reply) {
    if (!reply) return view_.warning(reply.error().message);
    const std::string text = get_text(*reply, "text");
    const auto tokens = get_unsigned(*reply, "tokens");
    view_.shown(text.empty() ? "none" : tokens ? fmt::format("{}\n[{} tokens]", text, *tokens) : text);
  });
}

void ChatSession::show_prompt() {
  if (conversation_.messages.empty()) return view_.warning("nothing has been said yet");
  show({{"op", "render"}, {"messages", messages("", 0)}});
}

void ChatSession::show_template() { show({{"op", "template"}}); }

std::string ChatSession::status() const {
  std::string text = state_text(state_);
  if (download_ && download_->beside) text += "\n" + state_text(download_->state);
  if (const std::string far = progress(); !far.empty()) text += " " + far;
  if (!queue_.empty()) text += fmt::format("\n{} waiting", queue_.size());
  if (weights_ready_) {
    const DecoderInfo& info = generator_.decoder()->info();
    text += fmt::format("\ndecoder: {} on {}, {}, vocabulary {}, context {}", info.implementation,
                        info.device, info.dtype, info.vocab_size, info.max_context);
  }
  if (text_ready_)
    text += fmt::format("\nchat template: {}\nsampling: {}", template_.empty() ? "none" : template_,
                        sampling_.summary());
  if (!conversation_.system.empty()) text += "\nsystem: " + conversation_.system;
  text += fmt::format("\nconversation: {} messages", conversation_.messages.size());
  if (first_kept_ > 0) text += fmt::format(", of which the model no longer reads {}", first_kept_);
  return transcript_.path().empty() ? text : text + "\nkept in " + transcript_.path();
}

std::string ChatSession::stats() const {
  if (totals_.answers == 0) return "there is no answer yet";
  const auto used = static_cast<int64_t>(totals_.last.prompt_tokens + totals_.last.new_tokens);
  const int64_t all = generator_.decoder()->info().max_context;
  return fmt::format("last answer: {}\nanswers in this chat: {}, of {} tokens\ncontext: {} of {} tokens, {}%",
                     figures(totals_.last), totals_.answers, totals_.new_tokens, used, all, used * 100 / all);
}

}  // namespace bitctl
