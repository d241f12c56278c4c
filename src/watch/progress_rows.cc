#include "watch/progress_rows.h"

#include <algorithm>

namespace bitctl {

bool ProgressRows::add(const Progress& progress, Mono now) {
  last_ = progress;
  ++reports_;
  if (progress.loss) {
    min_ = losses_ == 0 ? *progress.loss : std::min(min_, *progress.loss);
    max_ = losses_ == 0 ? *progress.loss : std::max(max_, *progress.loss);
    sum_ += *progress.loss;
    last_loss_ = *progress.loss;
    ++losses_;
  }
  if (!progress.non_finite.empty()) {
    non_finite_ = progress.non_finite;
    non_finite_step_ = progress.step;
  }
  return !last_row_ || now - *last_row_ >= kPace;
}

std::optional<Mono> ProgressRows::due_at() const {
  if (reports_ == 0 || !last_row_) return std::nullopt;
  return *last_row_ + kPace;
}

Json ProgressRows::take(Mono now) {
  Json row = {{"step", last_.step}};
  if (last_.total_steps) row["total_steps"] = *last_.total_steps;
  if (last_.epoch) row["epoch"] = *last_.epoch;
  if (last_.total_epochs) row["total_epochs"] = *last_.total_epochs;
  if (losses_ > 0)
    row["loss"] = {
        {"last", last_loss_}, {"min", min_}, {"mean", sum_ / losses_}, {"max", max_}, {"n", losses_}};
  if (!non_finite_.empty()) {
    row["non_finite_loss"] = non_finite_;
    row["non_finite_step"] = non_finite_step_;
  }
  if (last_.lr) row["lr"] = *last_.lr;
  if (!last_.message.empty()) row["message"] = last_.message;
  if (last_.stamp) row["stamp"] = *last_.stamp;
  reports_ = 0;
  losses_ = 0;
  sum_ = 0;
  non_finite_.clear();
  last_row_ = now;
  return row;
}

}  // namespace bitctl
