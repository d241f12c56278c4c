#include "base/strict_json.h"

#include <cmath>
#include <functional>
#include <set>
#include <utility>
#include <vector>

namespace bitctl {
namespace {

// Builds the document from the parser's events. The library's own builder keeps the last of two equal keys in
// silence and has no depth limit.
class Builder : public nlohmann::json_sax<Json> {
 public:
  explicit Builder(size_t max_depth) : max_depth_(max_depth) {}

  bool null() override { return add(nullptr); }
  bool boolean(bool v) override { return add(v); }
  bool number_integer(number_integer_t v) override { return add(v); }
  bool number_unsigned(number_unsigned_t v) override { return add(v); }
  bool number_float(number_float_t v, const string_t&) override { return add(v); }
  bool string(string_t& v) override { return add(std::move(v)); }
  bool binary(binary_t&) override { return false; }

  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    if (!open_.back().keys.insert(name).second) return refuse("duplicate key \"" + name + "\"");
    if (on_outermost_key && open_.size() == 1) on_outermost_key(name);
    open_.back().key = std::move(name);
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception& error) override {
    byte_ = position > 0 ? position - 1 : 0;
    const std::string what = error.what();
    const size_t bracket = what.find("] ");
    reason_ = bracket == std::string::npos ? what : what.substr(bracket + 2);
    return false;
  }

  Json root;
  std::function<void(const std::string&)> on_outermost_key;
  size_t byte() const { return byte_; }
  const std::string& reason() const { return reason_; }
  bool refused() const { return refused_; }

 private:
  struct Open {
    Json value;
    std::string key;  // under which the next value goes, in an object
    std::set<std::string> keys;
  };

  bool refuse(std::string reason) {
    reason_ = std::move(reason);
    refused_ = true;
    return false;
  }
  bool add(Json value) {
    if (open_.empty()) {
      root = std::move(value);
    } else if (Open& parent = open_.back(); parent.value.is_array()) {
      parent.value.push_back(std::move(value));
    } else {
      // ordered_json looks a key up by a linear scan; the set above already proved that it is new.
      parent.value.get_ref<Json::object_t&>().emplace_back(std::move(parent.key), std::move(value));
    }
    return true;
  }
  bool open(Json value) {
    if (open_.size() >= max_depth_) return refuse("nested deeper than " + std::to_string(max_depth_));
    open_.push_back({std::move(value), {}, {}});
    return true;
  }
  bool close() {
    Json value = std::move(open_.back().value);
    open_.pop_back();
    return add(std::move(value));
  }

  size_t max_depth_;
  std::vector<Open> open_;
  size_t byte_ = 0;
  std::string reason_;
  bool refused_ = false;
};

// The parser does not say where its handler stopped it, so an iterator that counts is handed to it.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, const char** furthest) : at_(at), furthest_(furthest) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    ++at_;
    if (*furthest_ < at_) *furthest_ = at_;
    return *this;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }
  bool operator!=(const CountingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  const char** furthest_;
};

}  // namespace

tl::expected<Json, JsonError> parse_strict_json(std::string_view text, size_t max_depth,
                                                ValueOffsets* offsets) {
  if (text.empty()) return tl::unexpected(JsonError{0, "empty"});
  if (text.starts_with("\xef\xbb\xbf")) return tl::unexpected(JsonError{0, "starts with a byte order mark"});
  Builder builder(max_depth);
  const char* furthest = text.data();
  if (offsets) {
    // The parser stands right behind the key's closing quote: a colon and blanks away from the value.
    builder.on_outermost_key = [&](const std::string& key) {
      (*offsets)[key] = std::min(text.find_first_not_of(" \t\r\n:", furthest - text.data()), text.size());
    };
  }
  const bool ok = Json::sax_parse(CountingIterator(text.data(), &furthest),
                                  CountingIterator(text.data() + text.size(), &furthest), &builder);
  if (ok) {
    // To the parser a NUL is the end of its input, whatever comes after it.
    const size_t nul = text.find('\0');
    if (nul != std::string_view::npos) return tl::unexpected(JsonError{nul, "a NUL byte"});
    return std::move(builder.root);
  }
  const size_t byte = builder.refused() ? static_cast<size_t>(furthest - text.data()) : builder.byte();
  return tl::unexpected(JsonError{std::min(byte, text.size()), builder.reason()});
}

namespace {

const Json* field(const Json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

}  // namespace

std::optional<uint64_t> get_unsigned(const Json& object, std::string_view key) {
  const Json* value = field(object, key);
  if (value == nullptr || !value->is_number_integer()) return std::nullopt;
  if (!value->is_number_unsigned() && value->get<int64_t>() < 0) return std::nullopt;
  return value->get<uint64_t>();
}

std::optional<double> get_finite(const Json& object, std::string_view key) {
  const Json* value = field(object, key);
  if (value == nullptr || !value->is_number() || !std::isfinite(value->get<double>())) return std::nullopt;
  return value->get<double>();
}

std::string get_text(const Json& object, std::string_view key, std::string_view otherwise) {
  const Json* value = field(object, key);
  return value != nullptr && value->is_string() ? value->get<std::string>() : std::string(otherwise);
}

bool get_flag(const Json& object, std::string_view key) {
  const Json* value = field(object, key);
  return value != nullptr && value->is_boolean() && value->get<bool>();
}

std::string dump_line(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace bitctl
