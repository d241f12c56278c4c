#include "commands/commands.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/exit_code.h"
#include "base/text.h"
#include "base/visible_text.h"

namespace bitctl {

CLI::Option* add_duration_option(CLI::App& app, const std::string& name, std::optional<Duration>& out,
                                 const std::string& help) {
  const auto parse = [&out, name](const std::string& text) {
    out = parse_duration(text);
    if (!out) out = parse_duration(text + "s");
    if (!out || *out <= Duration::zero())
      throw CLI::ValidationError(name, "\"" + text + "\" is not a duration such as 30s, 1h30m or 2");
  };
  return app.add_option_function<std::string>(name, parse, help)->type_name("DURATION");
}

CLI::Option* add_run_argument(CLI::App& app, std::string& run) {
  return app.add_option("RUN", run, "Run id, its unique prefix, or folder; the newest run where left out");
}

int complain(const Error& error, int code) {
  for (const std::string& line : split(visible_text(error.message, Newlines::keep), '\n'))
    std::fprintf(stderr, "bitctl: %s\n", line.c_str());
  return code;
}

int after_output(int code) {
  errno = 0;
  const bool arrived = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  if (arrived) return code;
  // What stdio met earlier it does not tell.
  return complain({.message = fmt::format("cannot write stdout{}{}", errno ? ": " : "",
                                          errno ? std::strerror(errno) : "")},
                  kOwnFailure);
}

}  // namespace bitctl
