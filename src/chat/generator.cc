#include "chat/generator.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace bitctl {
namespace {

// A prompt is run in pieces, so that Ctrl-C need not wait for all of it.
constexpr size_t kPieceTokens = 128;

bool contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

Duration since(Mono start) { return std::chrono::steady_clock::now() - start; }

}  // namespace

std::string_view name_of(StopReason reason) {
  constexpr std::array<std::string_view, 4> kNames{"end_of_turn", "length", "interrupted", "error"};
  return kNames[static_cast<size_t>(reason)];
}

std::string figures(const GenerationEnd& end) {
  const double spent = as_seconds(end.total - end.to_first_token);
  const double rate = end.new_tokens > 1 && spent > 0 ? static_cast<double>(end.new_tokens - 1) / spent : 0;
  return fmt::format("[{} tokens, {:.1f} tok/s, first after {:.0f}ms, {} of {} prompt tokens reused]",
                     end.new_tokens, rate, as_seconds(end.to_first_token) * 1e3, end.reused_tokens,
                     end.prompt_tokens);
}

size_t reusable_tokens(std::span<const int32_t> cached, std::span<const int32_t> wanted) {
  const auto differ = std::mismatch(cached.begin(), cached.end(), wanted.begin(), wanted.end());
  const auto common = static_cast<size_t>(differ.second - wanted.begin());
  return std::min(common, wanted.empty() ? 0 : wanted.size() - 1);
}

Generator::Generator() : thread_([this] { run(); }) {}

Generator::~Generator() {
  stop_ = true;
  {
    const std::lock_guard guard(mutex_);
    quit_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Generator::use(std::unique_ptr<Decoder> decoder) {
  decoder_ = std::move(decoder);
  cached_.clear();
  logits_.resize(static_cast<size_t>(decoder_->info().vocab_size));
}

void Generator::start(GenerationJob job) {
  stop_ = false;
  {
    const std::lock_guard guard(mutex_);
    job_ = std::move(job);
  }
  wake_.notify_one();
}

void Generator::run() {
  while (true) {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return job_ || quit_; });
    if (quit_) return;
    const GenerationJob job = *std::exchange(job_, std::nullopt);
    lock.unlock();
    events_.post(generate(job));
  }
}

GenerationEnd Generator::generate(const GenerationJob& job) {
  const Mono start = std::chrono::steady_clock::now();
  GenerationEnd end{.job = job.id, .prompt_tokens = job.prompt.size()};
  const auto finish = [&](StopReason reason, std::string error = {}) {
    end.reason = reason;
    end.error = std::move(error);
    end.total = since(start);
    return end;
  };

  end.reused_tokens = reusable_tokens(cached_, job.prompt);
  if (const Status status = prefill(job.prompt, end.reused_tokens); !status)
    return finish(StopReason::error, status.error().message);
  while (!stop_) {
    const auto id = sample(logits_, job.sampling, cached_.size(), cached_);
    if (!id) return finish(StopReason::error, id.error().message);
    if (end.new_tokens == 0) end.to_first_token = since(start);
    if (contains(job.stop_ids, *id)) return finish(StopReason::end_of_turn);
    events_.post(GeneratedToken{job.id, *id});
    if (static_cast<int64_t>(++end.new_tokens) >= job.max_new_tokens) return finish(StopReason::length);
    if (const Status status = forward({&*id, 1}); !status)
      return finish(StopReason::error, status.error().message);
  }
  return finish(StopReason::interrupted);
}

Status Generator::prefill(std::span<const int32_t> prompt, size_t from) {
  cached_.resize(from);
  while (cached_.size() < prompt.size() && !stop_) {
    const size_t at = cached_.size();
    if (const Status status = forward(prompt.subspan(at, std::min(kPieceTokens, prompt.size() - at)));
        !status)
      return status;
  }
  return {};
}

Status Generator::forward(std::span<const int32_t> ids) {
  Status status = decoder_->forward(ids, cached_.size(), logits_);
  if (status)
    cached_.insert(cached_.end(), ids.begin(), ids.end());
  else
    cached_.clear();  // what the decoder holds after a failure is not known
  return status;
}

}  // namespace bitctl
