#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <filesystem>

#include "chat/session.h"

namespace bitctl {

void ChatSession::forward_prompt(std::string prompt, bool was_queued) {
  const RemoteOptions& to = options_.remote;
  spdlog::info("prompt forwarded reason={} url={}", route().reason, to.url);
  turn_ = Turn{.id = next_turn_++, .prompt = std::move(prompt), .forwarded = true};
  view_.answer_begins(turn_->prompt, was_queued);
  std::error_code gone;
  const auto command = worker_command("bitctl.remote", std::filesystem::current_path(gone).string());
  const Status started = command ? remote_.start(*command) : Status(tl::unexpected<Error>(command.error()));
  if (!started) return on_remote_failure(started.error().message);
  remote_.ask({{"op", "chat"},
               {"url", to.url},
               {"model", to.model},
               {"key_env", to.key_env},
               {"messages", messages(turn_->prompt, 0)},
               {"settings", sampling_.for_remote()}},
              [this, id = turn_->id](Result<Json> reply) { on_remote(id, std::move(reply)); });
}

void ChatSession::on_remote(uint64_t turn, Result<Json> reply) {
  if (!turn_ || turn_->id != turn) return;
  if (!reply) return on_remote_failure(fmt::format("{}: {}", options_.remote.url, reply.error().message));
  if (const std::string model = get_text(*reply, "model"); !model.empty()) {
    turn_->model = model;
    view_.prompt_forwarded("model_not_ready", model, options_.remote.url);
  }
  if (const std::string text = get_text(*reply, "text"); !text.empty()) {
    turn_->answer += text;
    view_.answer_text(text);
  }
  if (reply->value("more", Json()) == true) return;
  remote_.end();
  end_turn({.job = turn,
            .reason = get_text(*reply, "stop") == "length" ? StopReason::length : StopReason::end_of_turn});
}

// A prompt that got no word is the model's, once that is ready.
void ChatSession::on_remote_failure(const std::string& reason) {
  remote_.end();
  if (!turn_ || !turn_->forwarded) return;
  if (!turn_->answer.empty() || options_.no_wait)
    return end_turn({.job = turn_->id, .reason = StopReason::error, .error = reason});
  view_.warning("✗ " + reason);
  queue_.push_front(std::move(turn_->prompt));
  turn_.reset();
  remote_failed_ = true;
  if (!state_.is<Bootstrap::Ready>()) view_.prompt_queued(state_);
  next_turn();
}

}  // namespace bitctl
