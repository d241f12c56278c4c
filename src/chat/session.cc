#include "chat/session.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <random>

namespace bitctl {
namespace {

namespace event = bootstrap_event;

constexpr int64_t kMaxNewTokens = 1024;  // where neither the user nor the model says

uint64_t random_seed() {
  std::random_device device;
  return device();  // 32 bits: short enough to be typed again
}

std::vector<int32_t> ids_of(const Json& list) {
  std::vector<int32_t> ids;
  if (list.is_array())
    for (const auto& id : list)
      if (id.is_number_integer())
        ids.push_back(static_cast<int32_t>(std::clamp<int64_t>(id.get<int64_t>(), -1, INT32_MAX)));
  return ids;
}

// A whole number of the model's own file. 0 and whatever is none are as if it were not there.
std::optional<int64_t> positive_at(const Json& object, const char* key) {
  const uint64_t value = get_unsigned(object, key).value_or(0);
  return value == 0 ? std::nullopt
                    : std::optional(static_cast<int64_t>(std::min<uint64_t>(value, INT64_MAX)));
}

}  // namespace

ChatSession::ChatSession(EventLoop& loop, const ChatOptions& options, ModelOpener opener, SessionView& view)
    : loop_(loop),
      options_(options),
      view_(view),
      system_(options.system),
      seed_(options.seed.value_or(random_seed())),
      worker_(loop, [this](const std::string& reason) { on_worker_death(reason); }),
      loader_(std::move(opener), options.open) {}

ChatSession::~ChatSession() {
  loop_.unwatch(loader_.events().fd());
  loop_.unwatch(generator_.events().fd());
}

void ChatSession::start() {
  loop_.watch(loader_.events().fd(), EPOLLIN, [this](uint32_t) {
    for (auto& event : loader_.events().take()) on_loader_event(std::move(event));
  });
  loop_.watch(generator_.events().fd(), EPOLLIN,
              [this](uint32_t) { on_generated(generator_.events().take()); });
  start_worker();  // its imports take longer than finding the files
  loading_ = true;
  loader_.start(options_.model);
}

void ChatSession::advance(const BootstrapEvent& event) {
  const Bootstrap before = std::exchange(state_, next_bootstrap(state_, event));
  if (state_.stage.index() != before.stage.index()) view_.state_changed(state_);
  if (state_.is<Bootstrap::Ready>()) next_turn();
}

void ChatSession::fail_load(const std::string& reason) { advance(event::Failure{reason}); }

void ChatSession::start_worker() {
  std::error_code gone;  // a folder that was removed has no path; the worker does without
  const auto command = text_worker_command(std::filesystem::current_path(gone).string());
  const Status started = command ? worker_.start(*command) : Status(tl::unexpected<Error>(command.error()));
  if (!started) fail_load(started.error().message);
}

void ChatSession::load_text() {
  if (!worker_.running()) return;
  worker_.ask({{"op", "load"}, {"folder", files_->folder}},
              [this](Result<Json> reply) { on_text_loaded(std::move(reply)); });
}

void ChatSession::on_loader_event(LoaderEvent event) {
  if (auto* found = std::get_if<Result<ModelFiles>>(&event)) {
    if (*found) {
      files_ = **found;
      advance(event::ModelFound{files_->name});
      load_text();
      return;
    }
    loading_ = false;
    const Error& error = found->error();
    if (options_.offline && error.kind == ErrorKind::not_found)
      advance(event::NotHere{});
    else
      fail_load(error.message);
  } else if (const auto* warning = std::get_if<LoadWarning>(&event)) {
    view_.warning(warning->text);
  } else if (const auto* bytes = std::get_if<BytesLoaded>(&event)) {
    advance(event::BytesLoaded{bytes->bytes, bytes->total});
  } else {
    auto& opened = std::get<Result<std::unique_ptr<Decoder>>>(event);
    loading_ = false;
    if (!opened) return fail_load(opened.error().message);
    generator_.use(std::move(*opened));
    advance(event::WeightsReady{});
  }
}

void ChatSession::on_text_loaded(Result<Json> reply) {
  text_ready_ = reply.has_value();
  if (!reply) return fail_load(reply.error().message);
  const Json& loaded = *reply;
  generation_ = loaded.value("generation", Json::object());
  stop_ids_ = ids_of(loaded.value("stop_ids", Json::array()));
  template_ = loaded.contains("template") && loaded["template"].is_string()
                  ? loaded["template"].get<std::string>()
                  : "";
  if (template_.empty())
    view_.warning("⚠ This model has no chat template: each prompt is continued as plain text");
  advance(event::TextReady{});
}

void ChatSession::on_worker_death(const std::string& reason) {
  text_ready_ = false;
  fail_load(reason);
  if (!turn_) return;
  generator_.stop();
  // A generator that runs ends the turn by its own last event, for which no text will come.
  if (!turn_->generating || turn_->end)
    end_turn({.job = turn_->id, .reason = StopReason::error, .error = reason});
}

bool ChatSession::retry() {
  if (!state_.is<Bootstrap::Failed>() && !state_.is<Bootstrap::NotAvailable>()) return false;
  advance(event::Retry{});
  if (!text_ready_) start_worker();  // one that still computes may do so for ever
  if (!loading_ && generator_.decoder() == nullptr) {
    loading_ = true;
    files_.reset();
    loader_.start(options_.model);
  } else if (files_) {
    advance(event::ModelFound{files_->name});
    if (generator_.decoder() != nullptr) advance(event::WeightsReady{});
    load_text();
  }
  return true;
}

void ChatSession::submit(std::string prompt) {
  const Routing routing = route_prompt(state_, options_.no_wait);
  if (routing.route != Route::local) spdlog::info("prompt deferred reason={}", routing.reason);
  switch (routing.route) {
    case Route::local:
      if (!turn_) return begin_turn(std::move(prompt), false);
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
  if (turn_ || queue_.empty() || !state_.is<Bootstrap::Ready>()) return;
  std::string prompt = std::move(queue_.front());
  queue_.pop_front();
  begin_turn(std::move(prompt), true);
}

void ChatSession::begin_turn(std::string prompt, bool was_queued) {
  turn_ = Turn{.id = next_turn_++, .prompt = std::move(prompt)};
  view_.answer_begins(turn_->prompt, was_queued);
  Json messages = Json::array();
  if (!system_.empty()) messages.push_back({{"role", "system"}, {"content", system_}});
  for (const auto& message : conversation_)
    messages.push_back({{"role", message.role}, {"content", message.content}});
  messages.push_back({{"role", "user"}, {"content", turn_->prompt}});
  worker_.ask({{"op", "encode"}, {"messages", std::move(messages)}},
              [this, id = turn_->id](Result<Json> reply) { on_encoded(id, std::move(reply)); });
}

void ChatSession::on_encoded(uint64_t turn, Result<Json> reply) {
  if (!turn_ || turn_->id != turn) return;
  GenerationEnd end{.job = turn, .reason = StopReason::error};
  if (!reply) {
    end.error = reply.error().message;
    return end_turn(end);
  }
  GenerationJob job{.id = turn, .prompt = ids_of(reply->value("ids", Json::array())), .stop_ids = stop_ids_};
  const DecoderInfo& info = generator_.decoder()->info();
  const auto room = info.max_context - static_cast<int64_t>(job.prompt.size());
  const auto outside = std::find_if(job.prompt.begin(), job.prompt.end(),
                                    [&](int32_t id) { return id < 0 || id >= info.vocab_size; });
  if (job.prompt.empty())
    end.error = "the prompt has no tokens";
  else if (outside != job.prompt.end())
    end.error = fmt::format(
        "token {} is not in the model's vocabulary of {}: tokenizer.json belongs to another model", *outside,
        info.vocab_size);
  else if (room <= 0)
    end.error = fmt::format("the conversation has {} tokens and the model takes {}{}", job.prompt.size(),
                            info.max_context, conversation_.empty() ? "" : "; /clear begins a new one");
  if (!end.error.empty()) return end_turn(end);
  job.max_new_tokens = std::min(max_new_tokens(), room);
  job.sampling = sampling();
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
  const std::string text = reply->value("text", "");
  turn_->answer += text;
  if (!text.empty()) view_.answer_text(text);
  if (last) end_turn(*turn_->end);
}

void ChatSession::end_turn(GenerationEnd end) {
  const Turn turn = *std::exchange(turn_, std::nullopt);
  // What was said stays said, also when it was cut short; a prompt that got no word was never asked.
  const bool whole = end.reason == StopReason::end_of_turn || end.reason == StopReason::length;
  if (whole || !turn.answer.empty()) {
    conversation_.push_back({"user", turn.prompt});
    conversation_.push_back({"assistant", turn.answer});
  }
  view_.answer_ends(end);
  next_turn();
}

bool ChatSession::stop_answer() {
  if (!turn_) return false;
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

bool ChatSession::clear() {
  if (turn_) return false;
  conversation_.clear();
  return true;
}

SamplerOptions ChatSession::sampling() const {
  const bool asked = options_.top_p || options_.seed;
  const double temperature = get_flag(generation_, "do_sample")
                                 ? get_finite(generation_, "temperature").value_or(1)
                                 : (asked ? 1 : 0);
  return {.temperature = options_.temperature.value_or(temperature),
          .top_k = positive_at(generation_, "top_k").value_or(0),
          .top_p = options_.top_p.value_or(get_finite(generation_, "top_p").value_or(1)),
          .seed = seed_};
}

int64_t ChatSession::max_new_tokens() const {
  return options_.max_new_tokens.value_or(positive_at(generation_, "max_new_tokens").value_or(kMaxNewTokens));
}

std::string ChatSession::status() const {
  std::string text = state_text(state_);
  if (const auto* loading = std::get_if<Bootstrap::Loading>(&state_.stage); loading && loading->total > 0)
    text += " " + progress_bar(loading->bytes, loading->total);
  if (!queue_.empty()) text += fmt::format("\n{} waiting", queue_.size());
  if (generator_.decoder() != nullptr) {
    const DecoderInfo& info = generator_.decoder()->info();
    text += fmt::format("\ndecoder: {} on {}, {}, vocabulary {}, context {}", info.implementation,
                        info.device, info.dtype, info.vocab_size, info.max_context);
  }
  if (text_ready_) {
    const SamplerOptions now = sampling();
    text += fmt::format("\nchat template: {}", template_.empty() ? "none" : template_);
    text += now.temperature <= 0 ? std::string("\nsampling: greedy")
                                 : fmt::format("\nsampling: temperature {}, top_p {}, seed {}",
                                               now.temperature, now.top_p, seed_);
  }
  if (!system_.empty()) text += "\nsystem: " + system_;
  return text + fmt::format("\nconversation: {} messages", conversation_.size());
}

}  // namespace bitctl
