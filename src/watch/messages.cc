#include "watch/messages.h"

#include <fmt/format.h>

#include "base/visible_text.h"

namespace bitctl {
namespace {

constexpr size_t kMaxText = 1000;

tl::unexpected<Error> bad(const Json& message, const char* key) {
  return fail(ErrorKind::invalid, fmt::format("message '{}': field '{}' is missing or wrong",
                                              visible_text(get_text(message, "type")), key));
}

// Fields that may be absent or null.
std::optional<double> finite(const Json& message, const char* key, bool& ok) {
  const auto found = message.find(key);
  if (found == message.end() || found->is_null()) return std::nullopt;
  const auto value = get_finite(message, key);
  ok = ok && value.has_value();
  return value;
}

std::optional<uint64_t> count(const Json& message, const char* key, bool& ok) {
  const auto found = message.find(key);
  if (found == message.end() || found->is_null()) return std::nullopt;
  const auto value = get_unsigned(message, key);
  ok = ok && value.has_value();
  return value;
}

std::string text(const Json& message, const char* key) { return shortened(get_text(message, key), kMaxText); }

int small_number(const Json& message, const char* key, int otherwise) {
  const auto value = get_unsigned(message, key);
  return value && *value <= 1'000'000'000 ? static_cast<int>(*value) : otherwise;
}

}  // namespace

Result<Json> message_from(const std::string& bytes) {
  auto json = parse_strict_json(bytes, 32);
  if (!json)
    return fail(ErrorKind::invalid,
                fmt::format("message: byte {}: {}", json.error().byte, json.error().reason));
  const auto type = json->is_object() ? json->find("type") : json->end();
  if (!json->is_object() || type == json->end() || !type->is_string())
    return fail(ErrorKind::invalid, "message without a type");
  return std::move(*json);
}

Result<Hello> hello_from(const Json& message) {
  Hello hello;
  hello.protocol = small_number(message, "protocol", 0);
  hello.role = text(message, "role");
  if (hello.protocol == 0) return bad(message, "protocol");
  if (hello.role.empty()) return bad(message, "role");
  hello.attempt = small_number(message, "attempt", 0);
  hello.token = text(message, "token");
  hello.rank = small_number(message, "rank", 0);
  hello.world_size = std::max(1, small_number(message, "world_size", 1));
  hello.restart = small_number(message, "restart", 0);
  hello.pid = small_number(message, "pid", 0);
  hello.python = text(message, "python");
  hello.torch = text(message, "torch");
  hello.threads = small_number(message, "threads", 0);
  return hello;
}

Result<Progress> progress_from(const Json& message) {
  bool ok = true;
  Progress progress;
  const auto step = count(message, "step", ok);
  if (!ok || !step) return bad(message, "step");
  progress.step = *step;
  progress.total_steps = count(message, "total_steps", ok);
  progress.epoch = finite(message, "epoch", ok);
  progress.total_epochs = finite(message, "total_epochs", ok);
  progress.loss = finite(message, "loss", ok);
  progress.lr = finite(message, "lr", ok);
  if (!ok) return bad(message, "a number");
  if ((progress.epoch && *progress.epoch < 0) || (progress.total_epochs && *progress.total_epochs < 0))
    return bad(message, "epoch");
  progress.non_finite = text(message, "non_finite_loss");
  return progress;
}

}  // namespace bitctl
