#include "chat/transfer_rate.h"

#include <fmt/format.h>

#include "base/text.h"
#include "chat/bootstrap.h"

namespace bitctl {
namespace {

constexpr Duration kWindow = std::chrono::seconds(8);
constexpr Duration kLeast = std::chrono::seconds(2);
// Small files tell what a request takes, not how fast bytes come.
constexpr uint64_t kLeastBytes = uint64_t{256} << 10;
constexpr Duration kStall = std::chrono::seconds(5);

std::string whole_seconds(Duration duration) {
  return format_duration(std::chrono::floor<std::chrono::seconds>(duration));
}

}  // namespace

void TransferRate::saw(Mono now, uint64_t bytes) {
  if (seen_.empty() || bytes > seen_.back().bytes) seen_.push_back({now, bytes});
  while (seen_.size() > 2 && now - seen_[1].when >= kWindow) seen_.pop_front();
}

std::optional<double> TransferRate::bytes_per_second(Mono now) const {
  if (seen_.size() < 2 || now - seen_.front().when < kLeast || stalled(now)) return std::nullopt;
  const uint64_t came = seen_.back().bytes - seen_.front().bytes;
  if (came < kLeastBytes) return std::nullopt;
  return static_cast<double>(came) / as_seconds(now - seen_.front().when);
}

std::optional<Duration> TransferRate::stalled(Mono now) const {
  if (seen_.empty() || now - seen_.back().when < kStall) return std::nullopt;
  return now - seen_.back().when;
}

std::string transfer_text(uint64_t bytes, uint64_t total, const TransferRate& rate, Mono now) {
  std::string text = total > 0   ? progress_bar(bytes, total)
                     : bytes > 0 ? fmt::format("{:.1f}MB", static_cast<double>(bytes) / 1e6)
                                 : "";
  if (const auto silent = rate.stalled(now))
    return fmt::format("{}{}stalled for {}", text, text.empty() ? "" : ", ", whole_seconds(*silent));
  const auto speed = rate.bytes_per_second(now);
  if (!speed) return text;
  text += fmt::format(", {:.1f}MB/s", *speed / 1e6);
  if (total <= bytes) return text;
  return text +
         fmt::format(", {} left", whole_seconds(from_seconds(static_cast<double>(total - bytes) / *speed)));
}

}  // namespace bitctl
