#include "lib/session/meta.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/session/limits.h"

int meta_want(struct meta *m, const char *name)
{
	char **wanted = realloc(m->wanted, (m->n_wanted + 1) * sizeof(*wanted));

	if (!wanted)
		return -ENOMEM;
	m->wanted = wanted;
	wanted[m->n_wanted] = strdup(name);
	if (!wanted[m->n_wanted])
		return -ENOMEM;
	m->n_wanted++;
	return 0;
}

void meta_want_nothing(struct meta *m)
{
	for (size_t i = 0; i < m->n_wanted; i++)
		free(m->wanted[i]);
	free(m->wanted);
	m->wanted = NULL;
	m->n_wanted = 0;
}

int meta_select(struct meta *m, uint32_t id, const char *name, size_t len)
{
	struct meta_context *list;

	if (meta_by_id(m, id))
		return -EEXIST;
	if (m->n_selected == CONTEXTS_MAX)
		return -E2BIG;
	list = realloc(m->selected, (m->n_selected + 1) * sizeof(*list));
	if (!list)
		return -ENOMEM;
	m->selected = list;
	list[m->n_selected] = (struct meta_context) { id, strndup(name, len) };
	if (!list[m->n_selected].name)
		return -ENOMEM;
	m->n_selected++;
	return 0;
}

void meta_select_nothing(struct meta *m)
{
	for (size_t i = 0; i < m->n_selected; i++)
		free(m->selected[i].name);
	free(m->selected);
	m->selected = NULL;
	m->n_selected = 0;
	m->valid = false;
}

const struct meta_context *meta_by_id(const struct meta *m, uint32_t id)
{
	for (size_t i = 0; i < m->n_selected; i++)
		if (m->selected[i].id == id)
			return &m->selected[i];
	return NULL;
}

const struct meta_context *meta_by_name(const struct meta *m, const char *name)
{
	for (size_t i = 0; i < m->n_selected; i++)
		if (strcmp(m->selected[i].name, name) == 0)
			return &m->selected[i];
	return NULL;
}

void meta_clear(struct meta *m)
{
	meta_want_nothing(m);
	meta_select_nothing(m);
}
