#include "base/log.h"

#include <spdlog/async.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdlib>

namespace bitctl {
namespace {

constexpr size_t kQueued = 512;  // lines; each place is 400 bytes of a supervisor that means to be small

void set_level(const std::string& otherwise) {
  const char* level = std::getenv("BITCTL_LOG_LEVEL");
  spdlog::set_level(spdlog::level::from_str(level ? level : otherwise));
}

class LineSink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit LineSink(std::function<void(std::string)> take) : take_(std::move(take)) {}

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    take_({line.data(), line.size() - 1});  // without its newline
  }
  void flush_() override {}

  std::function<void(std::string)> take_;
};

void log_to_sink(std::shared_ptr<spdlog::sinks::sink> sink, const std::string& level) {
  auto logger = std::make_shared<spdlog::logger>("bitctl", std::move(sink));
  logger->set_pattern("bitctl: %l: %v");
  spdlog::set_default_logger(logger);
  set_level(level);
}

}  // namespace

void log_to_stderr(const std::string& level) {
  log_to_sink(std::make_shared<spdlog::sinks::stderr_sink_mt>(), level);
}

void log_to(std::function<void(std::string line)> take, const std::string& level) {
  log_to_sink(std::make_shared<LineSink>(std::move(take)), level);
}

void log_to_file(const std::string& path) {
  spdlog::init_thread_pool(kQueued, 1);
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
