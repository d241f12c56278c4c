#include "pulse/read.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <limits>

#include "base/read_file.h"
#include "base/strict_json.h"
#include "base/visible_text.h"

namespace bitctl {
namespace {

constexpr std::array kStates = {TrainingState::idle, TrainingState::running, TrainingState::done,
                                TrainingState::error};
constexpr std::array kKeys = {"status", "epoch", "total_epochs", "loss", "message", "timestamp"};
constexpr size_t kMaxQuoted = 40;
constexpr size_t kMaxReason = 240;

struct Trouble {
  std::string key;  // empty: the document itself
  std::string reason;
};

// Takes the fields one after another; the first trouble is kept and makes the later calls idle.
class Fields {
 public:
  explicit Fields(const Json& json) : json_(json) {}

  const std::optional<Trouble>& trouble() const { return trouble_; }

  void state(const char* key, TrainingState& out) {
    const Json* value = at(key, "a text", [](const Json& j) { return j.is_string(); });
    if (!value) return;
    for (const TrainingState state : kStates) {
      if (value->get_ref<const std::string&>() == state_name(state)) {
        out = state;
        return;
      }
    }
    refuse(key, "is none of idle, running, done, error");
  }

  void number(const char* key, double& out, double smallest) {
    const Json* value = at(key, "a number", [](const Json& j) { return j.is_number(); });
    if (!value) return;
    const double number = value->get<double>();
    if (!std::isfinite(number)) return refuse(key, "is not finite");
    if (number < smallest) return refuse(key, "is negative");
    out = number + 0.0;  // no minus zero
  }

  void text(const char* key, std::string& out) {
    const Json* value = at(key, "a text", [](const Json& j) { return j.is_string(); });
    if (value) out = value->get<std::string>();
  }

  void unix_seconds(const char* key, int64_t& out) {
    // An integer beyond 64 bits reaches us as a float, one beyond 63 bits would wrap in silence.
    const Json* value = at(key, "a whole number", [](const Json& j) { return j.is_number_integer(); });
    if (!value) return;
    if (value->is_number_unsigned()) {
      if (value->get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
        return refuse(key, "is out of range");
    } else if (value->get<int64_t>() < 0) {
      return refuse(key, "is negative");
    }
    out = value->get<int64_t>();
  }

 private:
  const Json* at(const char* key, const char* wanted, bool (*fits)(const Json&)) {
    if (trouble_) return nullptr;
    const auto found = json_.find(key);
    if (found == json_.end()) {
      trouble_ = Trouble{"", fmt::format("\"{}\" is missing", key)};
      return nullptr;
    }
    if (!fits(*found)) {
      refuse(key, fmt::format("is not {}", wanted));
      return nullptr;
    }
    return &*found;
  }
  void refuse(const char* key, const std::string& why) {
    trouble_ =
        Trouble{key, fmt::format("\"{}\" {}: {}", key, why, shortened(dump_line(json_[key]), kMaxQuoted))};
  }

  const Json& json_;
  std::optional<Trouble> trouble_;
};

PulseDamaged damaged(const std::string& path, size_t byte, const std::string& reason) {
  return {path, byte, shortened(visible_text(reason), kMaxReason)};
}

}  // namespace

PulseRead parse_pulse(std::string_view bytes, const std::string& path) {
  ValueOffsets offsets;
  const auto json = parse_strict_json(bytes, 8, &offsets);
  if (!json) return damaged(path, json.error().byte, json.error().reason);
  if (!json->is_object()) return damaged(path, 0, "not a JSON object");

  PulseGood good;
  Fields fields(*json);
  fields.state("status", good.status.status);
  fields.number("epoch", good.status.epoch, 0);
  fields.number("total_epochs", good.status.total_epochs, 0);
  fields.number("loss", good.status.loss, std::numeric_limits<double>::lowest());
  fields.text("message", good.status.message);
  fields.unix_seconds("timestamp", good.status.timestamp);
  if (const auto& trouble = fields.trouble()) {
    const size_t byte = trouble->key.empty() ? bytes.rfind('}') : offsets[trouble->key];
    return damaged(path, byte, trouble->reason);
  }
  for (const auto& [key, value] : json->items())
    if (std::find(kKeys.begin(), kKeys.end(), key) == kKeys.end()) good.unknown_keys.push_back(key);
  return good;
}

PulseRead read_pulse(const std::string& path) {
  const auto bytes = read_small_file(path, kMaxPulseBytes);
  if (bytes) return parse_pulse(*bytes, path);
  const Error& error = bytes.error();
  if (error.kind == ErrorKind::not_found) return PulseMissing{};
  // read_small_file begins each message with the path, which has a field of its own here.
  PulseDamaged damage =
      damaged(path, 0, error.message.substr(std::min(path.size() + 2, error.message.size())));
  damage.readable = false;
  return damage;
}

std::string damage_text(const PulseDamaged& damage) {
  const std::string path = visible_text(damage.path);
  return damage.readable ? fmt::format("{}: byte {}: {}", path, damage.byte, damage.reason)
                         : fmt::format("{}: {}", path, damage.reason);
}

}  // namespace bitctl
