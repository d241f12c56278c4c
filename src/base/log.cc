#include "base/log.h"

#include <spdlog/async.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdlib>

namespace bitctl {
namespace {

void set_level(const std::string& otherwise) {
  const char* level = std::getenv("BITCTL_LOG_LEVEL");
  spdlog::set_level(spdlog::level::from_str(level ? level : otherwise));
}

}  // namespace

void log_to_stderr(const std::string& level) {
  auto logger = std::make_shared<spdlog::logger>("bitctl", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("bitctl: %l: %v");
  spdlog::set_default_logger(logger);
  set_level(level);
}

void log_to_file(const std::string& path) {
  spdlog::init_thread_pool(8192, 1);
  auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path);
  auto logger = std::make_shared<spdlog::async_logger>("bitctl", sink, spdlog::thread_pool(),
                                                       spdlog::async_overflow_policy::overrun_oldest);
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %P %l: %v");
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(logger);
  set_level("info");
}

void flush_log() { spdlog::shutdown(); }

}  // namespace bitctl
