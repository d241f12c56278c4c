#include "supervise/pulse_source.h"

#include <fmt/format.h>

namespace bitctl {

PulseSource::PulseSource(EventLoop& loop, std::string path, std::function<void(const PulseStatus&)> on_status,
                         std::function<void(const std::string&)> on_trouble)
    : loop_(loop),
      path_(std::move(path)),
      on_status_(std::move(on_status)),
      on_trouble_(std::move(on_trouble)),
      inbox_(loop) {}

PulseSource::~PulseSource() { loop_.cancel(timer_); }

void PulseSource::start(int64_t since) {
  since_ = since;
  last_.reset();
  trouble_.clear();
  loop_.cancel(timer_);
  tick();
}

void PulseSource::tick() {
  look();
  timer_ = loop_.call_after(std::chrono::seconds(1), [this] { tick(); });
}

void PulseSource::look(std::function<void()> done) {
  reader_.post([this, done = std::move(done)] {
    inbox_.post([this, done, read = read_pulse(path_)] {
      take(read);
      done();
    });
  });
}

void PulseSource::take(const PulseRead& read) {
  if (const auto* damaged = std::get_if<PulseDamaged>(&read)) {
    std::string trouble = fmt::format("{}: byte {}: {}", damaged->path, damaged->byte, damaged->reason);
    if (trouble != trouble_) on_trouble_(trouble);
    trouble_ = std::move(trouble);
  } else if (const auto* good = std::get_if<PulseGood>(&read)) {
    trouble_.clear();
    if (good->status.timestamp < since_ || good->status == last_) return;
    last_ = good->status;
    on_status_(good->status);
  }
}

}  // namespace bitctl
