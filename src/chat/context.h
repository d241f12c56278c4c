// What to do when a conversation outgrows the model's context: pure.
#pragma once

#include <cstdint>
#include <string>

namespace bitctl {

enum class WhenFull {
  drop,  // the oldest prompts and answers are left out
  stop,  // no further prompt is taken
};

// Tokens that are kept free for an answer: all it may have, where that is less than a quarter of the context.
int64_t room_for_answer(int64_t max_context, int64_t max_new_tokens);

enum class ContextPlan { fits, drop_oldest, too_long };

// `droppable`: there is an older turn that can be left out.
ContextPlan plan_context(int64_t prompt_tokens, int64_t max_context, int64_t max_new_tokens,
                         WhenFull when_full, bool droppable);

// From 80 % on, one line for people; empty below.
std::string context_warning(int64_t used, int64_t max_context, WhenFull when_full);

}  // namespace bitctl
