#include "chat/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <tuple>

#include "base/text.h"
#include "base/visible_text.h"
#include "chat/graphemes.h"

namespace bitctl {
namespace {

constexpr int kNarrow = 24;  // cells of a column
constexpr std::string_view kBetween = " | ";

Result<ModelChoice> choice_of(const std::string& word, const std::string& run) {
  uint64_t step = 0;
  const auto [rest, error] = std::from_chars(word.data(), word.data() + word.size(), step);
  if (error != std::errc() || rest != word.data() + word.size()) return ModelChoice{.path = word};
  if (run.empty())
    return fail(ErrorKind::invalid, fmt::format("{}: the model is not of a run, so it has no steps", word));
  return ModelChoice{.path = run, .step = step};
}

std::vector<std::string> rows_of(const ComparedAnswer& answer, int width) {
  const std::string text = answer.model + "\n\n" + visible_text(answer.text, Newlines::keep);
  std::vector<std::string> rows;
  for (const auto& [begin, end] : break_rows(text, width))
    rows.push_back(shown(text.substr(begin, end - begin)));
  return rows;
}

std::string padded(const std::string& row, int width) {
  return row + std::string(static_cast<size_t>(std::max(width - display_width(row), 0)), ' ');
}

}  // namespace

Result<std::vector<ModelChoice>> models_to_compare(std::string_view words, const std::string& run) {
  std::vector<ModelChoice> models;
  for (const std::string& word : split(words, ' ')) {
    if (word.empty()) continue;
    auto choice = choice_of(word, run);
    if (!choice) return tl::unexpected(choice.error());
    models.push_back(std::move(*choice));
  }
  if (models.size() != 2) return fail(ErrorKind::invalid, "/compare takes two models or steps");
  return models;
}

std::string side_by_side(const std::vector<ComparedAnswer>& answers, int width) {
  const int column = (width - static_cast<int>(kBetween.size())) / 2;
  std::string text;
  if (column < kNarrow || answers.size() != 2) {
    for (const auto& answer : answers)
      text += fmt::format("{}== {}\n{}", text.empty() ? "" : "\n", answer.model,
                          visible_text(answer.text, Newlines::keep));
    return text;
  }
  const auto left = rows_of(answers[0], column);
  const auto right = rows_of(answers[1], column);
  for (size_t i = 0; i < std::max(left.size(), right.size()); ++i)
    text += fmt::format("{}{}{}{}", i == 0 ? "" : "\n", padded(i < left.size() ? left[i] : "", column),
                        kBetween, i < right.size() ? right[i] : "");
  return text;
}

// One model: from its load to the end of its answer, which next() is told behind the session's own calls.
class Comparison::Side : private SessionView {
 public:
  explicit Side(Comparison& all)
      : all_(all), session_(all.loop_, all.options_, all.opener_, static_cast<SessionView&>(*this)) {
    session_.sampling() = all.prompt_.sampling;
    std::ignore = session_.start();  // fails for want of a conversation to go on with, and here is one
    std::ignore = session_.go_on_with(all.prompt_.before);  // refused in the middle of an answer only
    session_.submit(all.prompt_.prompt);
  }
  ~Side() override {
    if (ended_) all_.loop_.cancel(*ended_);
  }

  ChatSession& session() { return session_; }

  void stop() {
    if (session_.stop_answer()) return;
    session_.drop_queue();
    if (!session_.cancel_load()) end("");
  }

 private:
  void end(std::string text) {
    if (ended_) return;
    const std::string name = session_.model_name();
    all_.answers_.push_back({name.empty() ? all_.options_.model.path : name, std::move(text)});
    ended_ = all_.loop_.call_after(Duration::zero(), [this] {
      ended_.reset();
      all_.next();
    });
  }

  void state_changed(const Bootstrap& state) override {
    if (state.is<Bootstrap::Failed>() || state.is<Bootstrap::NotAvailable>()) end(state_text(state));
    if (state.is<Bootstrap::Ready>() && all_.stopped_) end("");
  }
  void prompt_queued(const Bootstrap&) override {}
  void prompt_refused(std::string_view, const std::string& text) override { end(text); }
  void answer_begins(const std::string&, bool) override {}
  void answer_text(std::string_view text) override { answer_ += text; }
  void answer_ends(const GenerationEnd& end_of_answer) override {
    if (end_of_answer.reason == StopReason::error)
      answer_ += (answer_.empty() ? "✗ " : "\n✗ ") + end_of_answer.error;
    end(answer_);
  }
  void warning(const std::string&) override {}
  void shown(const std::string&) override {}

  Comparison& all_;
  std::string answer_;
  std::optional<EventLoop::TimerId> ended_;
  ChatSession session_;
};

Comparison::Comparison(EventLoop& loop, ChatOptions options, ModelOpener opener, ComparedPrompt prompt,
                       std::vector<ModelChoice> models, OnEnd on_end)
    : loop_(loop),
      options_(std::move(options)),
      opener_(std::move(opener)),
      prompt_(std::move(prompt)),
      models_(std::move(models)),
      on_end_(std::move(on_end)) {
  options_.remote = {};
  options_.keep_transcript = options_.go_on = options_.no_wait = false;
  next();
}

Comparison::~Comparison() = default;

void Comparison::next() {
  side_.reset();  // one model's memory before the next one's
  const size_t at = answers_.size();
  if (stopped_ || at == models_.size()) {
    const OnEnd on_end = std::move(on_end_);
    return on_end(answers_);
  }
  options_.model = models_[at];
  side_ = std::make_unique<Side>(*this);
}

void Comparison::stop() {
  stopped_ = true;
  side_->stop();
}

bool Comparison::busy() const { return side_ && side_->session().busy(); }

void Comparison::end_workers() {
  if (side_) side_->session().end_workers();
}

}  // namespace bitctl
