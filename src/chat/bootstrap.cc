#include "chat/bootstrap.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace bitctl {
namespace {

using State = Bootstrap;
namespace event = bootstrap_event;

template <typename... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <typename... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;

bool is_on_the_way(const State& state) {
  return state.is<State::Initializing>() || state.is<State::Downloading>() || state.is<State::Loading>();
}

State ready_when_both_are(State state) {
  const auto& loading = std::get<State::Loading>(state.stage);
  if (loading.weights_ready && loading.text_ready) state.stage = State::Ready{};
  return state;
}

}  // namespace

std::string state_text(const Bootstrap& state) {
  return std::visit(
      Overloaded{
          [](const State::Initializing&) { return std::string("Initializing..."); },
          [&](const State::Downloading& now) {
            return fmt::format("Downloading {} ({}/{}): {}", state.model, now.index, now.count, now.file);
          },
          [&](const State::Loading&) { return fmt::format("Loading {}...", state.model); },
          [&](const State::Ready&) { return fmt::format("✓ {} ready", state.model); },
          [](const State::Failed& now) { return fmt::format("✗ Failed: {}", now.reason); },
          [](const State::NotAvailable&) { return std::string("⚠ Offline mode - model not available"); },
      },
      state.stage);
}

std::string progress_bar(uint64_t bytes, uint64_t total) {
  constexpr int kCells = 10;
  const double part = total == 0 ? 0 : std::min(1.0, static_cast<double>(bytes) / static_cast<double>(total));
  const int full = static_cast<int>(std::ceil(part * kCells));
  const std::string head = full < kCells ? ">" : "";
  return fmt::format("[{:<10}] {:.0f}% ({:.1f}GB / {:.1f}GB)",
                     std::string(static_cast<size_t>(full), '=') + head, part * 100,
                     static_cast<double>(bytes) / 1e9, static_cast<double>(total) / 1e9);
}

Bootstrap next_bootstrap(const Bootstrap& state, const BootstrapEvent& event) {
  State next = state;
  auto* loading = std::get_if<State::Loading>(&next.stage);
  return std::visit(
      Overloaded{
          [&](const event::DownloadBegins& now) {
            if (!state.is<State::Initializing>()) return next;
            return State{now.model, State::Downloading{}};
          },
          [&](const event::FileDownloads& now) {
            if (state.is<State::Downloading>())
              next.stage = State::Downloading{now.file, now.index, now.count, now.bytes, now.total};
            return next;
          },
          [&](const event::ModelFound& now) {
            next.model = now.model;
            if (is_on_the_way(state) && !loading) next.stage = State::Loading{};
            return next;
          },
          [&](const event::BytesLoaded& now) {
            if (loading) loading->bytes = now.bytes, loading->total = now.total;
            return next;
          },
          [&](const event::WeightsReady&) {
            if (!loading) return next;
            loading->weights_ready = true;
            return ready_when_both_are(next);
          },
          [&](const event::TextReady&) {
            if (!loading) return next;
            loading->text_ready = true;
            return ready_when_both_are(next);
          },
          [&](const event::Failure& now) {
            // The first reason is the one to read; the model's own end comes after any state.
            if (!state.is<State::Failed>()) next.stage = State::Failed{now.reason};
            return next;
          },
          [&](const event::NotHere&) {
            if (is_on_the_way(state)) next.stage = State::NotAvailable{};
            return next;
          },
          [&](const event::Retry&) {
            const bool ended = state.is<State::Failed>() || state.is<State::NotAvailable>();
            if (ended) next.stage = State::Initializing{};
            return next;
          },
          [&](const event::OtherModel&) { return State{}; },
      },
      event);
}

}  // namespace bitctl
