#include "run/events.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/replace_file.h"

namespace bitctl {

Json event_row(std::string_view kind, int attempt, Wall t) {
  return {{"t", unix_seconds_precise(t)}, {"attempt", attempt}, {"kind", kind}};
}

Result<EventLog> EventLog::open(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (!fd) return fail_errno("cannot open " + path);
  EventLog log(std::move(fd), path);
  const off_t size = ::lseek(log.fd_.get(), 0, SEEK_END);
  char last = '\n';
  if (size > 0 && ::pread(log.fd_.get(), &last, 1, size - 1) == 1 && last != '\n')
    if (auto status = write_all(log.fd_.get(), "\n", path); !status) return forward(std::move(status));
  return log;
}

Status EventLog::append(const Json& row) {
  const off_t size = ::lseek(fd_.get(), 0, SEEK_END);
  auto status = write_all(fd_.get(), dump_line(row) + "\n", path_);
  // Half a row would take the next one with it.
  if (!status && size >= 0 && ::ftruncate(fd_.get(), size) != 0)
    spdlog::error("cannot cut {} back to {} bytes", path_, size);
  return status;
}

Result<uint64_t> read_events(const std::string& path, uint64_t offset,
                             const std::function<void(const Json&)>& on_row) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd) return fail_errno(path);
  std::string rest;
  std::string buffer(size_t{1} << 20, '\0');
  while (true) {
    const ssize_t n =
        ::pread(fd.get(), buffer.data(), buffer.size(), static_cast<off_t>(offset + rest.size()));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("cannot read " + path);
    if (n == 0) return offset;
    rest.append(buffer, 0, static_cast<size_t>(n));
    size_t start = 0;
    for (size_t end; (end = rest.find('\n', start)) != std::string::npos; start = end + 1) {
      const auto row = parse_strict_json(std::string_view(rest).substr(start, end - start));
      if (row && row->is_object()) on_row(*row);
    }
    rest.erase(0, start);
    offset += start;
  }
}

}  // namespace bitctl
