// One prompt to two models, one after the other, so that they do not share the cores; each in a session of
// its own, with the same conversation before it, the same settings and the same seed.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "chat/options.h"
#include "chat/sampling.h"
#include "chat/session.h"

namespace bitctl {

struct ComparedAnswer {
  std::string model;
  std::string text;  // or why there is none

  bool operator==(const ComparedAnswer&) const = default;
};

struct ComparedPrompt {
  Conversation before;
  std::string prompt;
  Sampling sampling;
};

// "A B", each a model as the command line names it, or a number: a step of the run in that folder, which may
// be empty. Error::invalid says what is wrong.
Result<std::vector<ModelChoice>> models_to_compare(std::string_view words, const std::string& run);

// In columns, or below each other where a column would be narrow. Pure; control characters are made visible.
std::string side_by_side(const std::vector<ComparedAnswer>& answers, int width);

class Comparison {
 public:
  using OnEnd = std::function<void(const std::vector<ComparedAnswer>&)>;

  // `on_end` gets an answer for each model, fewer where it was stopped; it may destroy this object.
  Comparison(EventLoop& loop, ChatOptions options, ModelOpener opener, ComparedPrompt prompt,
             std::vector<ModelChoice> models, OnEnd on_end);
  ~Comparison();

  // Behind the token that is being computed.
  void stop();
  bool busy() const;
  void end_workers();

 private:
  class Side;

  void next();

  EventLoop& loop_;
  ChatOptions options_;
  ModelOpener opener_;
  const ComparedPrompt prompt_;
  std::vector<ModelChoice> models_;
  OnEnd on_end_;
  bool stopped_ = false;
  std::vector<ComparedAnswer> answers_;
  std::unique_ptr<Side> side_;
};

}  // namespace bitctl
