#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "chat/session.h"

namespace bitctl {
namespace {

namespace event = bootstrap_event;

}  // namespace

ChatSession::ChatSession(EventLoop& loop, const ChatOptions& options, ModelOpener opener, SessionView& view)
    : loop_(loop),
      options_(options),
      view_(view),
      sampling_(options.sampling, options.seed),
      choice_(options.model),
      worker_(loop, "the text worker", [this](const std::string& reason) { on_worker_death(reason); }),
      hub_(loop, "the download worker", [this](const std::string& reason) { download_ended(reason); }),
      remote_(loop, "the remote's worker", [this](const std::string& reason) { on_remote_failure(reason); }),
      loader_(std::move(opener), options.open) {
  conversation_.system = options.system;
}

ChatSession::~ChatSession() {
  if (download_ && download_->tick) loop_.cancel(*download_->tick);
  loop_.unwatch(loader_.events().fd());
  loop_.unwatch(generator_.events().fd());
}

Status ChatSession::start() {
  loop_.watch(loader_.events().fd(), EPOLLIN, [this](uint32_t) {
    for (auto& event : loader_.events().take()) on_loader_event(std::move(event));
  });
  loop_.watch(generator_.events().fd(), EPOLLIN,
              [this](uint32_t) { on_generated(generator_.events().take()); });
  start_worker();  // its imports take longer than finding the files
  begin_load();
  if (options_.keep_transcript || options_.go_on) transcript_.keep_in(transcript_folder());
  if (!options_.go_on) return {};
  const auto newest = newest_transcript(transcript_folder());
  if (!newest) return tl::unexpected(newest.error());
  auto conversation = transcript_.take_up(*newest);
  if (!conversation) return tl::unexpected(conversation.error());
  conversation_ = std::move(*conversation);
  if (!options_.system.empty()) conversation_.system = options_.system;
  return {};
}

void ChatSession::begin_load() {
  loading_ = true;
  rate_ = {};
  loader_.start(choice_);
}

// The view hears of where the events lead, not of what lies between.
void ChatSession::advance(std::initializer_list<BootstrapEvent> events) {
  Bootstrap next = state_;
  for (const auto& event : events) next = next_bootstrap(next, event);
  const Bootstrap before = std::exchange(state_, std::move(next));
  if (state_.stage.index() != before.stage.index() || state_.model != before.model)
    view_.state_changed(state_);
  if (state_.is<Bootstrap::Ready>()) next_turn();
}

void ChatSession::fail_load(const std::string& reason) { advance({event::Failure{reason}}); }

void ChatSession::start_worker() {
  std::error_code gone;  // a folder that was removed has no path; the worker does without
  const auto command = worker_command("bitctl.text", std::filesystem::current_path(gone).string());
  const Status started = command ? worker_.start(*command) : Status(tl::unexpected<Error>(command.error()));
  if (!started) fail_load(started.error().message);
}

void ChatSession::load_text() {
  text_ready_ = false;
  if (!worker_.running()) return;
  worker_.ask({{"op", "load"},
               {"folder", files_->text_folder()},
               {"model", files_->folder},
               {"template", options_.chat_template}},
              [this, load = ++text_loads_](Result<Json> reply) {
                if (load == text_loads_) on_text_loaded(std::move(reply));
              });
}

void ChatSession::on_loader_event(LoaderEvent event) {
  const bool is_of_the_next_model = !held_.empty() || switching_;
  if (cancelled_) {
    if (is_last(event)) load_ended();
  } else if (turn_ && is_of_the_next_model) {
    held_.push_back(std::move(event));
  } else if (auto* found = std::get_if<Result<ModelFiles>>(&event)) {
    on_found(std::move(*found));
  } else if (const auto* missing = std::get_if<OnlyOnHub>(&event)) {
    on_only_on_hub(*missing);
  } else if (const auto* warning = std::get_if<LoadWarning>(&event)) {
    view_.warning(warning->text);
  } else if (const auto* bytes = std::get_if<BytesLoaded>(&event)) {
    rate_.saw(loop_.now(), bytes->bytes);
    advance({event::BytesLoaded{bytes->bytes, bytes->total}});
    view_.progressed();
  } else {
    on_opened(std::move(std::get<Result<std::unique_ptr<Decoder>>>(event)));
  }
}

void ChatSession::on_found(Result<ModelFiles> found) {
  const bool switched = std::exchange(switching_, false);
  if (found) {
    files_ = std::move(*found);
    weights_ready_ = false;
    text_ready_ = false;
    if (switched)
      advance({event::OtherModel{}, event::ModelFound{files_->name}});
    else
      advance({event::ModelFound{files_->name}});
    if (switched && !worker_.running()) start_worker();
    return load_text();
  }
  on_not_found(found.error(), switched);
}

void ChatSession::on_not_found(const Error& error, bool switched) {
  if (switched) {
    choice_ = before_;
    view_.warning(
        fmt::format("✗ {}{}", error.message, state_.is<Bootstrap::Ready>() ? "; nothing has changed" : ""));
  } else if (options_.offline && error.kind == ErrorKind::not_found) {
    view_.warning(error.message);
    advance({event::NotHere{}});
  } else {
    fail_load(error.message);
  }
  load_ended();
  next_turn();
}

void ChatSession::on_opened(Result<std::unique_ptr<Decoder>> opened) {
  if (opened) {
    if (const std::string& remark = (*opened)->info().remark; !remark.empty()) view_.warning(remark);
    generator_.use(std::move(*opened));
    weights_ready_ = true;
    forget_context();
    advance({event::WeightsReady{}});
  } else {
    fail_load(opened.error().message);
  }
  load_ended();
}

void ChatSession::load_ended() {
  loading_ = cancelled_ = false;
  if (std::exchange(again_, false)) return begin_load();
  if (wanted_) use_model(*std::exchange(wanted_, std::nullopt));
}

void ChatSession::use_model(ModelChoice choice) {
  if (download_) cancel_load();
  unfinished_.reset();
  if (loading_) {
    wanted_ = std::move(choice);
    return view_.warning("⏳ behind the load that is going on");
  }
  switching_ = true;
  before_ = std::exchange(choice_, std::move(choice));
  begin_load();
}

Status ChatSession::use_latest() {
  if (!files_ || files_->run.empty())
    return fail(ErrorKind::invalid, "the model is not of a run, so there is no newer step");
  use_model({.path = files_->run, .newest_step = true, .other_than = files_->folder});
  return {};
}

void ChatSession::on_text_loaded(Result<Json> reply) {
  text_ready_ = reply.has_value();
  if (!reply) return fail_load(reply.error().message);
  sampling_.use_model(reply->value("generation", Json::object()));
  stop_ids_ = token_ids(*reply, "stop_ids");
  template_ = get_text(*reply, "template");
  if (template_.empty() && options_.chat_template.empty())
    view_.warning(
        "⚠ This model has no chat template: each prompt is continued as plain text (--template chatml or "
        "none)");
  advance({event::TextReady{}});
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
  if (unfinished_) {
    use_model(*std::exchange(unfinished_, std::nullopt));
    return true;
  }
  if (!state_.is<Bootstrap::Failed>() && !state_.is<Bootstrap::NotAvailable>()) return false;
  advance({event::Retry{}});
  if (!text_ready_) {
    // A turn that waits for the old worker would do so for ever.
    if (turn_ && (!turn_->generating || turn_->end))
      end_turn({.job = turn_->id, .reason = StopReason::error, .error = "the text worker was started anew"});
    start_worker();  // one that still computes may do so for ever
  }
  if (cancelled_) {
    again_ = true;
  } else if (!loading_ && !weights_ready_) {
    files_.reset();
    begin_load();
  } else if (files_) {
    if (weights_ready_)
      advance({event::ModelFound{files_->name}, event::WeightsReady{}});
    else
      advance({event::ModelFound{files_->name}});
    load_text();
  }
  return true;
}

bool ChatSession::cancel_load() {
  if (download_) {
    download_ended("cancelled; what has come is kept");
    return true;
  }
  const bool is_on_the_way = state_.is<Bootstrap::Initializing>() || state_.is<Bootstrap::Loading>();
  if (cancelled_ || (!loading_ && !is_on_the_way)) return false;
  loader_.stop();
  const bool has_ended = !loading_ || std::any_of(held_.begin(), held_.end(), is_last);
  held_.clear();
  wanted_.reset();
  loading_ = cancelled_ = !has_ended;
  if (std::exchange(switching_, false)) {
    choice_ = before_;
    view_.warning("cancelled; nothing has changed");
    next_turn();
  } else {
    worker_.end();  // its load may be what takes so long
    text_ready_ = false;
    fail_load("cancelled");
  }
  return true;
}

void ChatSession::end_workers() {
  worker_.end();
  hub_.end();
  remote_.end();
}

}  // namespace bitctl
