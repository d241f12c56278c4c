#include "model/rope_config.h"

#include <fmt/format.h>

#include <cmath>
#include <map>

#include "base/visible_text.h"

namespace bitctl {
namespace {

class RopeFields {
 public:
  RopeFields(ConfigFields& config, std::string_view layer_type) : config_(config), layer_type_(layer_type) {
    take_object("rope_parameters");
    // Where each type has its own, the old spelling is that of full attention.
    if (layer_type.empty() || layer_type == "full_attention") {
      take_object("rope_scaling");
      take_beside("rope_theta");
    } else {
      take_beside("rope_local_base_freq", "rope_theta");
    }
    take_beside("partial_rotary_factor");
    take_beside("original_max_position_embeddings");
  }

  // The value, which then counts as understood.
  std::optional<Json> use(const std::string& key) {
    const auto at = fields_.find(key);
    if (at == fields_.end()) return std::nullopt;
    Json value = std::move(at->second.value);
    fields_.erase(at);
    return value;
  }
  double number(const std::string& key, std::optional<double> otherwise = std::nullopt) {
    const auto value = use(key);
    if (!value) {
      if (!otherwise) config_.refuse("RoPE needs " + key);
      return otherwise.value_or(1);
    }
    if (value->is_number() && value->get<double>() > 0) return value->get<double>();
    config_.refuse(fmt::format("{} is {}, it must be a number above 0", key, shown(*value)));
    return 1;
  }
  std::vector<double> numbers(const std::string& key) {
    const auto value = use(key);
    std::vector<double> numbers;
    if (!value || !value->is_array()) {
      config_.refuse(fmt::format("RoPE needs {}, a list of numbers", key));
      return numbers;
    }
    for (const Json& one : *value) {
      if (!one.is_number() || !(one.get<double>() > 0))
        config_.refuse(fmt::format("{} holds {}, it must be a number above 0", key, shown(one)));
      else
        numbers.push_back(one.get<double>());
    }
    return numbers;
  }
  void refuse_the_rest(std::string_view type) {
    if (!fields_.empty())
      config_.refuse(fmt::format("{} is not implemented for rope_type \"{}\"",
                                 shortened(visible_text(fields_.begin()->first), 40), type));
  }

 private:
  struct Field {
    Json value;
    std::string where;
  };

  void take_object(const char* where) {
    const Json* object = config_.find(where);
    if (object == nullptr) return;
    if (!object->is_object()) return config_.refuse(fmt::format("{} is no object", where));
    if (const auto own = object->find(layer_type_); !layer_type_.empty() && own != object->end()) {
      if (own->is_null()) return;
      if (!own->is_object()) return config_.refuse(fmt::format("{} of {} is no object", where, layer_type_));
      object = &*own;
    } else if (!layer_type_.empty() && object->contains("full_attention")) {
      return;
    }
    for (const auto& [key, value] : object->items()) {
      if (value.is_object())
        return config_.refuse(fmt::format("{} of its own for \"{}\" is not implemented", where,
                                          shortened(visible_text(key), 40)));
      if (!value.is_null()) take(key == "type" ? "rope_type" : key, value, where);
    }
  }
  void take_beside(const char* key, const char* as = nullptr) {
    if (const Json* value = config_.find(key)) take(as != nullptr ? as : key, *value, "config.json");
  }
  void take(const std::string& key, const Json& value, const std::string& where) {
    const auto [at, is_new] = fields_.try_emplace(key, Field{value, where});
    if (!is_new && at->second.value != value)
      config_.refuse(fmt::format("it contradicts itself: {} is {} in {} and {} in {}",
                                 shortened(visible_text(key), 40), shown(at->second.value), at->second.where,
                                 shown(value), where));
  }

  ConfigFields& config_;
  std::string layer_type_;
  std::map<std::string, Field> fields_;
};

std::optional<RopeConfig::Type> type_of(const Json& name) {
  using Type = RopeConfig::Type;
  static const std::map<std::string, Type> kTypes{{"default", Type::plain},   {"linear", Type::linear},
                                                  {"dynamic", Type::dynamic}, {"llama3", Type::llama3},
                                                  {"yarn", Type::yarn},       {"longrope", Type::longrope},
                                                  {"su", Type::longrope}};  // as the first Phi-3 called it
  if (!name.is_string()) return std::nullopt;
  const auto at = kTypes.find(name.get<std::string>());
  return at == kTypes.end() ? std::nullopt : std::optional(at->second);
}

double yarn_attention_factor(RopeFields& fields, double factor) {
  const auto scale = [&](double weight) { return factor <= 1 ? 1.0 : 0.1 * weight * std::log(factor) + 1; };
  const double mscale = fields.number("mscale", 0), all_dims = fields.number("mscale_all_dim", 0);
  const double otherwise = mscale > 0 && all_dims > 0 ? scale(mscale) / scale(all_dims) : scale(1);
  return fields.number("attention_factor", otherwise);
}

double longrope_attention_factor(RopeFields& fields, double factor, double original) {
  return fields.number("attention_factor",
                       factor <= 1 ? 1.0 : std::sqrt(1 + std::log(factor) / std::log(original)));
}

// Long waves are slowed down by `factor`, short ones kept, those between are interpolated.
float llama3_frequency(float frequency, const RopeConfig& config) {
  const double context = config.original_max_position_embeddings;
  const double wavelength = 2 * M_PI / frequency;
  if (wavelength > context / config.low_freq_factor) return static_cast<float>(frequency / config.factor);
  if (wavelength < context / config.high_freq_factor) return frequency;
  const double smooth =
      (context / wavelength - config.low_freq_factor) / (config.high_freq_factor - config.low_freq_factor);
  return static_cast<float>((1 - smooth) * frequency / config.factor + smooth * frequency);
}

// Dimensions that turn often within the original context keep their frequency, slow ones are stretched.
class YarnRamp {
 public:
  YarnRamp(const RopeConfig& config, int64_t dimensions) {
    const auto dimension_of = [&](double turns) {
      return static_cast<double>(dimensions) *
             std::log(config.original_max_position_embeddings / (turns * 2 * M_PI)) /
             (2 * std::log(config.theta));
    };
    low_ = dimension_of(config.beta_fast);
    high_ = dimension_of(config.beta_slow);
    if (config.truncate) low_ = std::floor(low_), high_ = std::ceil(high_);
    low_ = std::max(low_, 0.0);
    high_ = std::min(high_, static_cast<double>(dimensions - 1));
    if (low_ == high_) high_ += 0.001;
  }
  // 0: kept, 1: divided by the factor.
  double at(size_t pair) const {
    return std::clamp((static_cast<double>(pair) - low_) / (high_ - low_), 0.0, 1.0);
  }

 private:
  double low_, high_;
};

}  // namespace

RopeConfig parse_rope(ConfigFields& config, int64_t max_position_embeddings, double default_theta,
                      std::string_view layer_type) {
  using Type = RopeConfig::Type;
  RopeFields fields(config, layer_type);
  RopeConfig rope;
  const Json name = fields.use("rope_type").value_or("default");
  const auto type = type_of(name);
  if (!type) {
    config.refuse(fmt::format(
        "rope_type {} is not implemented (known: default, linear, dynamic, llama3, yarn, longrope)",
        shown(name)));
    return rope;
  }
  rope.type = *type;
  rope.theta = fields.number("rope_theta", default_theta);
  rope.rotated_part = fields.number("partial_rotary_factor", 1);
  if (rope.rotated_part > 1) config.refuse("partial_rotary_factor is above 1");
  const auto most = static_cast<double>(max_position_embeddings);
  rope.original_max_position_embeddings = fields.number("original_max_position_embeddings", most);
  if (rope.type == Type::longrope)
    rope.factor = fields.number("factor", most / rope.original_max_position_embeddings);
  else if (rope.type != Type::plain)
    rope.factor = fields.number("factor");
  if (rope.type == Type::llama3) {
    rope.low_freq_factor = fields.number("low_freq_factor");
    rope.high_freq_factor = fields.number("high_freq_factor");
    if (rope.high_freq_factor <= rope.low_freq_factor)
      config.refuse("high_freq_factor must be above low_freq_factor");
  }
  if (rope.type == Type::yarn) {
    rope.beta_fast = fields.number("beta_fast", rope.beta_fast);
    rope.beta_slow = fields.number("beta_slow", rope.beta_slow);
    if (const auto truncate = fields.use("truncate")) rope.truncate = *truncate != Json(false);
    if (!rope.truncate && !layer_type.empty())
      config.refuse(fmt::format("truncate false for {} is not implemented: transformers overlooks it there",
                                layer_type));
    rope.attention_factor = yarn_attention_factor(fields, rope.factor);
  }
  if (rope.type == Type::longrope) {
    rope.short_factor = fields.numbers("short_factor");
    rope.long_factor = fields.numbers("long_factor");
    rope.attention_factor =
        longrope_attention_factor(fields, rope.factor, rope.original_max_position_embeddings);
  }
  fields.refuse_the_rest(name.get<std::string>());
  return rope;
}

int64_t rotated_dimensions(const RopeConfig& config, int64_t head_dim) {
  return static_cast<int64_t>(static_cast<double>(head_dim) * config.rotated_part);
}

std::vector<float> rope_frequencies(const RopeConfig& config, int64_t head_dim, bool is_long) {
  using Type = RopeConfig::Type;
  const int64_t dimensions = rotated_dimensions(config, head_dim);
  const YarnRamp ramp(config, dimensions);
  const std::vector<double>& stretch = is_long ? config.long_factor : config.short_factor;
  std::vector<float> frequencies(static_cast<size_t>(dimensions / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(dimensions);
    const float wave = std::pow(static_cast<float>(config.theta), exponent);
    float& frequency = frequencies[i];
    frequency = 1.0F / wave;
    if (config.type == Type::linear) frequency /= static_cast<float>(config.factor);
    if (config.type == Type::llama3) frequency = llama3_frequency(frequency, config);
    if (config.type == Type::longrope) frequency = 1.0F / (static_cast<float>(stretch[i]) * wave);
    if (config.type == Type::yarn) {
      const auto part = static_cast<float>(ramp.at(i));
      frequency = frequency / static_cast<float>(config.factor) * part + frequency * (1 - part);
    }
  }
  return frequencies;
}

}  // namespace bitctl
