// Small safetensors files, put together by hand so that they can be wrong.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

namespace bitctl {

inline std::string with_length(uint64_t n, const std::string& rest) {
  std::string file(8, '\0');
  std::memcpy(file.data(), &n, 8);
  return file + rest;
}

// Length, header, and so many bytes of data.
inline std::string file_of(const std::string& json, size_t data_bytes = 0) {
  return with_length(json.size(), json + std::string(data_bytes, 'x'));
}

// One tensor's entry without the braces around the header.
inline std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                         uint64_t begin, uint64_t end) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":[" +
         std::to_string(begin) + "," + std::to_string(end) + "]}";
}

}  // namespace bitctl
