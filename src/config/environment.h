// Environment variables: their names, ${NAME} in texts, files of KEY=VALUE lines, and which of them are
// secrets. Nothing here ever puts a value into a message.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/result.h"

namespace bitctl {

using Environment = std::map<std::string, std::string>;

Environment current_environment();

bool is_environment_name(std::string_view name);  // letters, digits, '_'; no digit first

// By its name (*TOKEN*, *KEY*, *SECRET*, *PASSWORD*, any case), unless the value is a mere switch that hides
// nothing (empty, true, false, 0, 1, …): TOKENIZERS_PARALLELISM=false is no secret.
bool is_secret(std::string_view name, std::string_view value);

// ${NAME} and ${NAME:-default} (the default also where NAME is empty), $$ for a plain dollar; every other
// dollar stays. Error::invalid says what is wrong with the text, without a place. `used` gets the variables
// that were read.
Result<std::string> expand(std::string_view text, const Environment& environment, Environment& used);

using Secrets = std::map<std::string, std::string>;  // from the value to the variable it can be read from

// Every secret becomes ${NAME}, wherever it stands; the longest first.
std::string mask_secrets(std::string_view text, const Secrets& secrets);
// The same, and plain dollars doubled: `expand` gives the text back.
std::string unexpand(std::string_view text, const Secrets& secrets);

// KEY=VALUE lines: blank lines and # comments, an optional `export`, '…' as it is, "…" with \n \t \" \\ \$,
// else up to " #". The last of equal keys wins. Errors read "<path>:<line>: <what>".
Result<Environment> read_env_file(const std::string& path);
Result<Environment> parse_env_file(std::string_view text, const std::string& path);

}  // namespace bitctl
