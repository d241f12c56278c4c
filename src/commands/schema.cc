#include <cstdio>

#include "base/exit_code.h"
#include "base/text.h"
#include "commands/commands.h"
#include "config/schemas.h"

namespace bitctl {
namespace {

// "config" stands for "config.v1".
std::string_view schema_named(const std::string& name) {
  const std::string_view exact = embedded_schema(name);
  return exact.empty() ? embedded_schema(name + ".v1") : exact;
}

int print_schema(const std::string& name) {
  std::vector<std::string> names;
  for (const std::string_view each : embedded_schema_names()) names.emplace_back(each);
  if (name.empty()) {
    for (const std::string& each : names) std::puts(each.c_str());
    return kOk;
  }
  const std::string_view schema = schema_named(name);
  if (schema.empty()) {
    std::string known;
    for (const std::string& each : names) known += (known.empty() ? "" : ", ") + each;
    return complain({ErrorKind::not_found, "no schema '" + name + "'; there are " + known}, kUsage);
  }
  std::fwrite(schema.data(), 1, schema.size(), stdout);
  return kOk;
}

}  // namespace

void add_schema_command(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("schema", "Print the JSON Schema of a file that bitctl reads or writes");
  auto name = std::make_shared<std::string>();
  command->add_option("NAME", *name, "config, run, event, …; without it the names are listed");
  command->callback([name, &action] { action = [name] { return after_output(print_schema(*name)); }; });
}

}  // namespace bitctl
