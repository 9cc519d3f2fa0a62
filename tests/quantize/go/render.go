// Renders chat templates with Go's own text/template on data of the shape that Ollama gives them, and says which tags
// around thinking their tree shows. Reads a JSON array of cases, writes one of results.
package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"text/template"
	"text/template/parse"
)

type message struct{ Role, Content, Thinking string }

type request struct {
	Template          string
	Messages          []*message
	Think, IsThinkSet bool
}

type result struct{ Prompt, Open, Close, Error string }

// tags finds the texts that begin and end the innermost list around .Thinking inside a range over .Messages.
func tags(list *parse.ListNode, ranged bool, found *result) {
	for _, node := range list.Nodes {
		var branch *parse.BranchNode
		mentions := false
		switch n := node.(type) {
		case *parse.ActionNode:
			mentions = strings.Contains(n.Pipe.String(), ".Thinking")
		case *parse.IfNode:
			branch = &n.BranchNode
			mentions = strings.Contains(n.Pipe.String(), ".Thinking")
		case *parse.RangeNode:
			branch = &n.BranchNode
		}
		if mentions && ranged {
			if text, ok := list.Nodes[0].(*parse.TextNode); ok {
				found.Open = strings.TrimSpace(string(text.Text))
			}
			if text, ok := list.Nodes[len(list.Nodes)-1].(*parse.TextNode); ok {
				found.Close = strings.TrimSpace(string(text.Text))
			}
		}
		if branch != nil {
			inside := ranged
			if _, ok := node.(*parse.RangeNode); ok {
				inside = strings.Contains(branch.Pipe.String(), ".Messages")
			}
			tags(branch.List, inside, found)
			if branch.ElseList != nil {
				tags(branch.ElseList, inside, found)
			}
		}
	}
}

func render(r request) (found result) {
	parsed, err := template.New("").Option("missingkey=zero").Parse(r.Template)
	if err != nil {
		return result{Error: err.Error()}
	}
	var out bytes.Buffer
	data := map[string]any{
		"Messages": r.Messages, "Response": "", "System": "", "Think": r.Think, "IsThinkSet": r.IsThinkSet,
	}
	if err := parsed.Execute(&out, data); err != nil {
		return result{Error: err.Error()}
	}
	found.Prompt = out.String()
	tags(parsed.Tree.Root, false, &found)
	return found
}

func main() {
	var requests []request
	if err := json.NewDecoder(os.Stdin).Decode(&requests); err != nil {
		panic(err)
	}
	results := []result{}
	for _, r := range requests {
		results = append(results, render(r))
	}
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		panic(err)
	}
}
