// A decoder that computes nothing: its vocabulary is the 256 bytes and ChatML's tokens, and it answers each
// prompt with what was said. What it answers depends on every id of its context, so a wrong reuse of the
// cache is heard.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "decode/decoder.h"

namespace bitctl {

struct FakeDecoderSettings {
  bool endless = false;  // repeats its answer until it is stopped
  std::chrono::milliseconds per_token{0};
  int64_t max_context = 4096;
  std::string fails_at = {};  // a prompt with this text makes forward() fail
  std::string dies_at = {};   // and with this one for ever
};

class FakeDecoder : public Decoder {
 public:
  static constexpr int32_t kEndOfText = 256, kBegin = 257, kEnd = 258;

  struct Call {
    size_t position;
    size_t count;
    bool operator==(const Call&) const = default;
  };

  explicit FakeDecoder(FakeDecoderSettings settings = {}) : settings_(std::move(settings)) {
    info_ = {.implementation = "fake",
             .device = "cpu",
             .dtype = "F32",
             .vocab_size = 259,
             .max_context = settings_.max_context};
  }

  const DecoderInfo& info() const override { return info_; }
  bool is_lost() const override { return is_lost_; }

  Status forward(std::span<const int32_t> ids, size_t position, std::span<float> logits) override {
    if (position > context_.size()) return fail(ErrorKind::invalid, "a hole in the context");
    std::this_thread::sleep_for(settings_.per_token);
    calls_.push_back({position, ids.size()});
    context_.resize(position);
    context_.insert(context_.end(), ids.begin(), ids.end());
    is_lost_ |= !settings_.dies_at.empty() && as_text(context_).find(settings_.dies_at) != std::string::npos;
    if (is_lost_) return fail(ErrorKind::io, "the fake decoder died");
    if (!settings_.fails_at.empty() && as_text(context_).find(settings_.fails_at) != std::string::npos)
      return fail(ErrorKind::io, "the fake decoder was told to fail");
    std::fill(logits.begin(), logits.end(), 0.0F);
    logits[static_cast<size_t>(next())] = 1;
    return {};
  }

  const std::vector<Call>& calls() const { return calls_; }

  // Bytes as they are, the begin of a message as \x01 and its end as \x02.
  static std::string as_text(std::span<const int32_t> ids) {
    std::string text;
    for (const int32_t id : ids)
      text += id < 256       ? std::string(1, static_cast<char>(id))
              : id == kBegin ? "\x01"
              : id == kEnd   ? "\x02"
                             : "";
    return text;
  }

  // As ChatML writes a conversation that asks for an answer.
  static std::vector<int32_t> chat_ids(const std::vector<std::pair<std::string, std::string>>& messages) {
    std::vector<int32_t> ids;
    const auto add = [&](const std::string& text) {
      for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    };
    for (const auto& [role, content] : messages) {
      ids.push_back(kBegin);
      add(role + "\n" + content);
      ids.push_back(kEnd);
      add("\n");
    }
    ids.push_back(kBegin);
    add("assistant\n");
    return ids;
  }

 private:
  int32_t next() const {
    const std::string text = as_text(context_);
    const std::string marks[2] = {"\x01user\n",
                                  "\x01"
                                  "assistant\n"};
    const size_t user = text.rfind(marks[0]);
    const size_t answer = text.rfind(marks[1]);
    if (user == std::string::npos || answer == std::string::npos || answer < user) return kEndOfText;
    const size_t said = user + marks[0].size();
    const std::string reply =
        "You said: " + text.substr(said, text.find('\x02', said) - said) + (settings_.endless ? " - " : "");
    const size_t spoken = text.size() - answer - marks[1].size();
    if (spoken >= reply.size() && !settings_.endless) return kEnd;
    return static_cast<unsigned char>(reply[spoken % reply.size()]);
  }

  FakeDecoderSettings settings_;
  DecoderInfo info_;
  std::vector<int32_t> context_;
  std::vector<Call> calls_;
  bool is_lost_ = false;
};

}  // namespace bitctl
