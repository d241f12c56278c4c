"""A model's chat template, rendered as transformers renders it: the same sandbox, the same filters and names."""

import datetime
import json
import traceback

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox


class TextError(Exception):
    """What the user is to read: one line."""


def one_line(error):
    return " ".join(str(error).split()) or type(error).__name__


class ChatTemplate:
    """`where` names the file for messages; `variables` are the special tokens a template may use."""

    def __init__(self, source, where, variables):
        self.source = source
        self.where = where
        self.variables = variables
        try:
            self.compiled = environment().from_string(source)
        except jinja2.exceptions.TemplateSyntaxError as error:
            raise TextError(f"{where}, line {error.lineno}: {one_line(error.message)}") from None

    def render(self, messages, add_generation_prompt):
        try:
            return self.compiled.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self.variables,
            )
        except Exception as error:  # a template is a foreign program: whatever it raises is its answer
            lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == "<template>"]
            where = f"{self.where}, line {lines[-1]}" if lines else self.where
            raise TextError(f"the chat template refuses ({where}): {one_line(error)}") from None


def environment():
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = tojson
    made.globals.update(
        raise_exception=raise_exception, strftime_now=strftime_now, dict=TemplateDict(), namespace=TemplateNamespace
    )
    return made


class GenerationBlock(jinja2.ext.Extension):
    """{% generation %} … {% endgeneration %} marks a trainer's loss mask; here its body is just rendered."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A call block, as in transformers, because its body is a scope of its own.
        return jinja2.nodes.CallBlock(self.call_method("render_body"), [], [], body).set_lineno(line)

    def render_body(self, caller):
        return caller()


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def strftime_now(format):
    return datetime.datetime.now().strftime(format)


class TemplateDict:
    """`dict(…)` without the type's other attributes, which lead out of the sandbox."""

    def __call__(self, *args, **kwargs):
        return dict(*args, **kwargs)

    def fromkeys(self, *args, **kwargs):
        return dict.fromkeys(*args, **kwargs)


class TemplateNamespace(jinja2.utils.Namespace):
    """`namespace(…)` whose attributes cannot be Python's own."""

    def __init__(*args, **kwargs):  # no named parameter, so that namespace(self=…) works
        self, given = args[0], dict(*args[1:], **kwargs)
        for name in given:
            refuse_underscore(name)
        jinja2.utils.Namespace.__init__(self, given)

    def __setitem__(self, name, value):
        refuse_underscore(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)


def refuse_underscore(name):
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace attribute must not start with '_': {name!r}")
