#include "chat/context.h"

#include <fmt/format.h>

#include <algorithm>

namespace bitctl {
namespace {

constexpr int64_t kWarnPercent = 80;

}  // namespace

int64_t room_for_answer(int64_t max_context, int64_t max_new_tokens) {
  return std::min(max_new_tokens, max_context / 4);
}

ContextPlan plan_context(int64_t prompt_tokens, int64_t max_context, int64_t max_new_tokens,
                         WhenFull when_full, bool droppable) {
  const bool drops = when_full == WhenFull::drop && droppable;
  if (drops && prompt_tokens + room_for_answer(max_context, max_new_tokens) > max_context)
    return ContextPlan::drop_oldest;
  return prompt_tokens < max_context ? ContextPlan::fits : ContextPlan::too_long;
}

std::string context_warning(int64_t used, int64_t max_context, WhenFull when_full) {
  if (used * 100 < max_context * kWarnPercent) return {};
  return fmt::format("⚠ {}% of the context is used ({} of {} tokens); {}", used * 100 / max_context, used,
                     max_context,
                     when_full == WhenFull::drop ? "once it is full, the oldest messages are left out"
                                                 : "once it is full, /clear begins a new conversation");
}

}  // namespace bitctl
