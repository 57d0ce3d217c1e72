/* What is wrong in the files: recorded and printed. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "conf/internal.h"

void conf_free_problem(struct conf_problem *p)
{
	free(p->file);
	free(p->device);
	free(p->text);
}

/* A new problem without its text. */
static int add_problem(struct conf_reader *r, unsigned line, bool fatal, const char *device,
		       struct conf_problem **ret)
{
	struct conf *c = r->conf;
	struct conf_problem p = { .line = line, .fatal = fatal }, *grown;

	grown = reallocarray(c->problems, c->n_problems + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	c->problems = grown;
	p.file = strdup(r->file);
	p.device = device ? strdup(device) : NULL;
	if (!p.file || (device && !p.device)) {
		conf_free_problem(&p);
		return -ENOMEM;
	}
	*ret = &grown[c->n_problems++];
	**ret = p;
	return 0;
}

int conf_problem(struct conf_reader *r, unsigned line, bool fatal, const char *device,
		 const char *format, ...)
{
	bool last = r->conf->n_problems - r->first_problem + 1 >= CONF_PROBLEMS_MAX;
	struct conf_problem *p;
	va_list ap;
	int e;

	e = add_problem(r, line, fatal || last, device, &p);
	if (e < 0)
		return e;
	va_start(ap, format);
	e = last ? asprintf(&p->text, "%u problems in this file; the rest of it is not read",
			    CONF_PROBLEMS_MAX - 1)
		 : vasprintf(&p->text, format, ap);
	va_end(ap);
	if (e < 0) {
		conf_free_problem(p);
		r->conf->n_problems--;
		return -ENOMEM;
	}
	return last ? -E2BIG : 0;
}

bool conf_left_out(const struct conf *c, const char *name)
{
	for (size_t i = 0; i < c->n_problems; i++)
		if (c->problems[i].fatal && c->problems[i].device &&
		    strcmp(c->problems[i].device, name) == 0)
			return true;
	return false;
}

size_t conf_print_problems(const struct conf *c, FILE *out)
{
	size_t fatal = 0;

	for (size_t i = 0; i < c->n_problems; i++) {
		const struct conf_problem *p = &c->problems[i];

		if (p->line)
			fprintf(out, "%s:%u: ", p->file, p->line);
		else
			fprintf(out, "%s: ", p->file);
		fprintf(out, "%s: %s\n", p->fatal ? "error" : "warning", p->text);
		fatal += p->fatal;
	}
	return fatal;
}
